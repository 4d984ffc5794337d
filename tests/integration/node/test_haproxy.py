"""What only the driver haproxy has: a process of its own that is adopted, restarted, reloaded, and told things."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import stat
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import psutil
import pytest

from node.dataplane.blocklist import Blocklist, place
from node.dataplane.builtin.tls import own_certificate
from secbeat.errors import ConfigError
from secbeat.settings import NodeSettings

pytestmark = pytest.mark.needs_haproxy
TOKEN = "0123456789abcdef-own-token-canary"


@pytest.fixture
def driver() -> str:
    return "haproxy"


def haproxy_of(directory: Path) -> int:
    return int((directory / "haproxy" / "haproxy.pid").read_text())


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
async def haproxy_node(node_process, orchestrator, upstream, haproxy_program):
    """A node process with this driver; its HAProxy ends with the test whatever happens."""
    directories = []

    async def start():
        node = await node_process(
            node=f'server_url = "{orchestrator.url}"\nbackend = "{backend}"\ndriver = "haproxy"\n'
            f'haproxy = "{haproxy_program}"',
            management=f'auth_token = "{TOKEN}"',
        )
        directories.append(node.directory / "state")
        return node

    backend = await upstream()
    yield start
    for directory in directories:
        with contextlib.suppress(OSError, ValueError):
            os.kill(haproxy_of(directory), signal.SIGKILL)


async def test_a_crash_of_the_agent_interrupts_no_request_and_the_next_agent_adopts_the_proxy(
    haproxy_node, orchestrator, client, until
):
    first = await haproxy_node()
    await until(lambda: orchestrator.heartbeats)
    pid = haproxy_of(first.directory / "state")
    slow = asyncio.create_task(client.get(f"https://127.0.0.1:{first.proxy}/slow?ms=1500"))
    await asyncio.sleep(0.3)
    first.process.kill()
    await first.ended()
    async with client.get(f"https://127.0.0.1:{first.proxy}/alone") as response:
        assert response.status == 200
    async with client.get(f"https://127.0.0.1:{first.proxy}/.secbeat/ready") as response:
        assert response.status == 200
    assert (await slow).status == 200
    config = first.directory / "node.toml"
    second = await asyncio.create_subprocess_exec(
        *node_command(), "--config", str(config), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = b""
    try:
        async with asyncio.timeout(60):
            while b"Took over HAProxy" not in output:
                output += await second.stdout.readline()
        assert haproxy_of(first.directory / "state") == pid
        # In rotation all the while: its blocklist was complete.
        async with client.get(f"https://127.0.0.1:{first.proxy}/.secbeat/ready") as response:
            assert response.status == 200
        second.terminate()
        await second.communicate()
        assert second.returncode == 0
        assert ended(pid)
    finally:
        if second.returncode is None:
            second.kill()
            await second.wait()


def node_command() -> list[str]:

    return [sys.executable, "-m", "node"]


async def test_a_proxy_that_crashes_is_started_again_with_its_state_and_counts_on(
    upstream, plane, client, at, until, caplog
):
    node = await plane(await upstream())
    node.hold("not yet")
    async with client.get(at(node)) as response:
        assert response.status == 200
    await until(lambda: node.stats().requests == 1, 10)
    pid = node.processes[0]
    os.kill(node.processes[1], signal.SIGSEGV)  # the worker; the master ends with it
    await until(lambda: node.processes and node.processes[0] != pid, 20)
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with client.get(at(node, "/.secbeat/ready")) as response:
                    assert response.status == 503  # still held
                    break
            await asyncio.sleep(0.05)
    async with client.get(at(node)) as response:
        assert response.status == 200
    await until(lambda: node.stats().requests == 2, 10)
    assert "HAProxy ended" in caplog.text


async def test_a_live_key_is_applied_by_a_reload_that_cuts_nobody_off(upstream, plane, client, at, until):
    backend = await upstream()
    node = await plane(backend)
    slow = asyncio.create_task(client.get(at(node, "/slow?ms=1500")))
    await until(lambda: node.in_flight, 10)
    before = node.processes
    node.configure(node._settings.model_copy(update={"max_body_bytes": 10}))
    await until(lambda: node.processes[1:2] not in ([], before[1:2]), 20)
    assert node.processes[0] == before[0]
    async with client.post(at(node), data=b"x" * 11) as response:
        assert response.status == 413
    assert (await slow).status == 200
    await until(lambda: node.stats().requests == 2, 10)  # the former worker's count is not lost


async def test_settings_that_change_nothing_reload_nothing(upstream, plane, until):
    node = await plane(await upstream())
    before = node.processes
    node.configure(node._settings)
    await until(lambda: len(node._tasks) == 4, 20)
    assert node.processes == before


async def test_a_renewed_certificate_counts_without_a_reload(upstream, plane, tmp_path, until):
    tls = own_certificate(tmp_path / "mine", ["one.example"], datetime.now(UTC))
    node = await plane(await upstream(), tls=tls)
    before, workers = await served_certificate(node.port), node.processes
    tls.cert_file.unlink()
    own_certificate(tmp_path / "mine", ["two.example"], datetime.now(UTC))
    node.configure(node._settings)
    async with asyncio.timeout(10):
        while await served_certificate(node.port) == before:  # noqa: ASYNC110 - another process's certificate
            await asyncio.sleep(0.05)
    assert node.processes == workers


async def served_certificate(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


async def test_a_hundred_thousand_blocked_addresses_are_in_force_in_seconds_and_one_more_at_once(
    upstream, plane, client, at
):
    node = await plane(await upstream())
    blocklist = Blocklist(1, (f"10.{a}.{b}.{c}" for a in range(4) for b in range(100) for c in range(250)))
    blocklist.put(place("2001:db8::/32"))
    began = time.monotonic()
    node.set_blocklist(blocklist)
    await until_blocked(node, "10.3.99.249/32", there=True)
    assert time.monotonic() - began < 15
    blocklist.put(place("127.0.0.1"), (datetime.now(UTC) + timedelta(seconds=5)).timestamp())
    node.set_blocklist(blocklist)
    async with asyncio.timeout(5):
        while True:
            async with client.get(at(node)) as response:
                if response.status == 403:
                    break
            await asyncio.sleep(0.01)
    # Its end comes without anybody's telling.
    await until_blocked(node, "127.0.0.1/32", there=False)
    async with client.get(at(node)) as response:
        assert response.status == 200
    assert node.stats().blocklist_size == 100_002


async def until_blocked(node, entry: str, *, there: bool) -> None:
    async with asyncio.timeout(30):
        while (entry in await node._runtime.ask("@1 show map blocklist.map")) is not there:  # noqa: ASYNC110 - another's
            await asyncio.sleep(0.1)


async def test_nobody_else_can_reach_sockets_or_key(upstream, plane, tmp_path):
    await plane(await upstream())
    directory = tmp_path / "plane0" / "haproxy"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in ("master.sock", "worker.sock", "log.sock", "node.pem", "haproxy.cfg"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name


async def test_latency_is_measured_from_request_to_end_of_response(upstream, plane, client, at, until):
    node = await plane(await upstream())
    for _ in range(5):
        async with client.get(at(node, "/slow?ms=200")) as response:
            await response.read()
    await until(lambda: node._latency._histogram._total == 5, 5)
    quantiles = node.take_latency()
    assert 200 <= quantiles.p50 < 400
    assert node.take_latency().p99 == 0


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (None, "HAPROXY_MISSING"),
        ("echo 'HAProxy version 2.4.22-f8e3218 2023/02/14'", "HAPROXY_TOO_OLD"),
        ("echo something else", "HAPROXY_MISSING"),
        ("[ $1 = -vv ] && echo 'HAProxy version 2.8.1' || { echo '[ALERT] no'; exit 1; }", "HAPROXY_REFUSED"),
        ("case $1 in -vv) echo 'HAProxy version 2.8.1';; -W) echo '[ALERT] no'; exit 1;; esac", "HAPROXY_FAILED"),
    ],
)
async def test_a_program_that_cannot_be_used_is_refused_with_its_code(script, code, plane, tmp_path):
    program = tmp_path / "program"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)
    with pytest.raises(ConfigError) as refused:
        await plane("http://127.0.0.1:1", haproxy=str(program))
    assert refused.value.code == code


async def test_a_taken_port_is_named(plane, tmp_path):
    settings = NodeSettings(listen_addr="127.0.0.1:0")
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(ConfigError) as refused:
            await plane(settings.backend, listen_addr=f"127.0.0.1:{port}")
    finally:
        server.close()
    assert refused.value.code == "PORT_IN_USE"


@pytest.mark.parametrize("draining", [False, True])
async def test_http_2_clients_are_served_without_a_failure_also_while_a_drain_propagates(
    draining, upstream, plane, programs
):
    node = await plane(await upstream())
    if draining:
        node.begin_drain()
    process = await asyncio.create_subprocess_exec(
        programs("h2load"), "-n500", "-c4", "-m10", f"https://127.0.0.1:{node.port}/x", stdout=asyncio.subprocess.PIPE
    )
    output = (await process.communicate())[0].decode()
    assert "Application protocol: h2" in output
    assert "500 succeeded, 0 failed, 0 errored, 0 timeout" in output
