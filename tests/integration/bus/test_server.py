"""The embedded server: what it starts, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import psutil
import pytest

from secbeat.bus import program
from secbeat.bus import server as embedded
from secbeat.bus._http import get_json
from secbeat.bus.server import NatsServer
from secbeat.errors import ConfigError
from secbeat.testing import until


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_it_syncs_always_listens_on_loopback_only_and_offers_nothing_else(server):
    varz = await get_json("127.0.0.1", port_of(server.monitoring_url), "/varz")
    assert varz["jetstream"]["config"]["sync_always"] is True
    assert varz["max_payload"] == 1024**2
    assert (varz["host"], varz["http_host"]) == ("127.0.0.1", "127.0.0.1")
    process = psutil.Process(server.pid)
    listening = {one.laddr for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == {port_of(server.url), port_of(server.monitoring_url)}


async def test_its_directory_is_private_and_nothing_secret_is_in_its_arguments(server):
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.directory / "nats-server.conf").stat().st_mode) == 0o600
    arguments = psutil.Process(server.pid).cmdline()
    assert arguments[1:] == ["-c", str(server.directory / "nats-server.conf")]


async def test_a_second_start_continues_the_store_under_the_same_address(tmp_path, bus_to):
    first = NatsServer(tmp_path / "n", port=0)
    await first.start()
    url = first.url
    bus = await bus_to(first)
    await (await bus.bucket("state")).put("node.a", b"1")
    await bus.close()
    await first.stop()
    second = NatsServer(tmp_path / "n", port=0)
    await second.start()
    try:
        assert second.url == url, "nodes that outlived the stop reconnect to the old address"
        assert (await (await (await bus_to(second)).bucket("state")).get("node.a")).value == b"1"
    finally:
        await second.stop()


async def test_a_second_server_on_the_same_directory_is_refused_and_the_first_unharmed(server, bus_to, monkeypatch):
    monkeypatch.setattr(embedded, "_LOCK_SECONDS", 0.3)
    with pytest.raises(ConfigError) as refusal:
        await NatsServer(server.directory, port=0).start()
    assert refusal.value.code == "STATE_IN_USE"
    assert str(server.directory) in refusal.value.why
    await (await (await bus_to(server)).bucket("state")).put("node.a", b"1")


async def test_a_taken_port_gives_a_free_one_or_the_refusal(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        free = NatsServer(tmp_path / "a", port=port, open_access=True)
        await free.start()
        assert port_of(free.url) != port
        await free.stop()
        with pytest.raises(ConfigError) as refusal:
            await NatsServer(tmp_path / "b", port=port, free_port_if_taken=False, open_access=True).start()
        assert refusal.value.code == "PORT_IN_USE"
        assert str(port) in refusal.value.why


async def test_the_port_of_the_last_start_goes_before_the_asked_one_that_is_free_again(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        first = NatsServer(tmp_path / "a", port=port, open_access=True)
        await first.start()
        await first.stop()
    second = NatsServer(tmp_path / "a", port=port, open_access=True)
    await second.start()
    assert second.url == first.url, "nodes that outlived the stop reconnect to the old address"
    await second.stop()


async def test_the_asked_port_is_used_when_it_is_free(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = NatsServer(tmp_path / "a", port=port, free_port_if_taken=False, open_access=True)
    await server.start()
    assert server.url == f"nats://127.0.0.1:{port}"
    await server.stop()


async def test_no_program_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(program.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as refusal:
        await NatsServer(tmp_path / "n").start()
    assert refusal.value.code == "NATS_BINARY_MISSING"


async def test_the_program_is_also_found_on_the_path(tmp_path, monkeypatch):
    real = program.find_binary()
    monkeypatch.setattr(program.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(real.parent))
    assert program.find_binary() == real


async def test_a_file_in_the_place_of_the_directory_is_said_so(tmp_path):
    (tmp_path / "n").write_text("")
    with pytest.raises(ConfigError) as refusal:
        await NatsServer(tmp_path / "n").start()
    assert refusal.value.code == "STATE_NOT_WRITABLE"


async def test_a_server_that_does_not_start_gives_its_own_last_words(tmp_path, monkeypatch):
    server = NatsServer(tmp_path / "n", port=0, open_access=True)
    config = server._config
    monkeypatch.setattr(server, "_config", lambda port: {**config(port), "no_such_key": 1})
    with pytest.raises(ConfigError) as refusal:
        await server.start()
    assert refusal.value.code == "NATS_START_FAILED"
    assert "no_such_key" in refusal.value.why
    assert server.pid is None


async def test_stopping_ends_the_process_and_frees_the_directory(tmp_path):
    server = NatsServer(tmp_path / "n", port=0, open_access=True)
    await server.start()
    pid = server.pid
    await server.stop()
    await server.stop()
    assert gone(pid)
    again = NatsServer(tmp_path / "n", port=0, open_access=True)
    await again.start()
    await again.stop()


async def test_a_server_that_dies_is_noticed(server):
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        assert await server.wait() == -signal.SIGKILL


class TestAsAChildProcess:
    @staticmethod
    async def start(directory: Path) -> tuple[asyncio.subprocess.Process, dict]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "secbeat.bus.server", "--directory", directory, "--port", "0", "--identity", directory / "id"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            return process, json.loads(await process.stdout.readline())

    async def test_it_tells_its_address_and_stops_on_sigterm(self, tmp_path):
        process, ready = await self.start(tmp_path / "n")
        assert ready["url"].startswith("nats://127.0.0.1:")
        assert not gone(ready["pid"])
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        assert gone(ready["pid"])

    async def test_killed_it_takes_nats_with_it_and_a_new_start_is_clean(self, tmp_path):
        process, ready = await self.start(tmp_path / "n")
        process.kill()
        await process.wait()
        again, ready_again = await self.start(tmp_path / "n")  # at once: waits for the old server's lock
        assert gone(ready["pid"])
        assert not gone(ready_again["pid"])
        again.terminate()
        await again.wait()

    async def test_it_ends_with_an_error_when_nats_dies(self, tmp_path):
        process, ready = await self.start(tmp_path / "n")
        os.kill(ready["pid"], signal.SIGKILL)
        async with asyncio.timeout(20):
            assert await process.wait() == 1


async def test_a_monitoring_port_that_does_not_answer_json_is_an_oserror():
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nnot json")
        writer.close()

    silent = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    with pytest.raises(OSError, match="JSON"):
        await get_json("127.0.0.1", port, "/varz")
    silent.close()
    with pytest.raises(OSError, match=r"refused|failed"):
        await get_json("127.0.0.1", port, "/varz")
    await until(lambda: not silent.is_serving())
