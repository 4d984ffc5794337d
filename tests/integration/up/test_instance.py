"""`Instance` as the demo and the acceptance tests use it."""

from __future__ import annotations

import asyncio
import os
import signal

import psutil
import pytest

from secbeat.bus import server
from secbeat.errors import ConfigError
from secbeat.up import Instance


async def active(instance, count=1):
    nodes = [node for node in await instance.api.items("/api/v1/nodes") if node["state"] == "active"]
    return nodes if len(nodes) == count else None


async def test_a_program_starts_uses_and_stops_an_instance(tmp_path, make_config, soon):
    async with Instance(tmp_path / "s", config_text=make_config(2), free_ports=True) as instance:
        await soon(lambda: active(instance, 2))

        async def apart():
            # A node may join before the job that starts it has reported the machine's address.
            return len({node["address"] for node in await instance.api.items("/api/v1/nodes")} - {"127.0.0.1"}) == 2

        await soon(apart)
        pids = instance.pids()
        assert set(pids) == {"nats", "orchestrator", "provisioner"}
        assert instance.token_file("read").read_text().strip() == instance.tokens["read"]
        left = await instance.retire()
        assert left == []
        assert await instance.api.items("/api/v1/nodes?all=1") == []
        assert (await instance.api.get("/api/v1/pools/default"))["retired"]
    assert not [pid for pid in pids.values() if psutil.pid_exists(pid)]


async def test_services_that_are_killed_start_again_and_the_fleet_stays(tmp_path, make_config, soon):
    async with Instance(tmp_path / "s", config_text=make_config(), free_ports=True) as instance:
        (node,) = await soon(lambda: active(instance))
        for name in ("orchestrator", "provisioner", "nats"):
            pid = instance.pids()[name]
            os.kill(pid, signal.SIGKILL)

            async def restarted(name=name):
                said = [one.sentence for one in instance.happenings if one.kind == "service.restarted"]
                return any(sentence.startswith(name) for sentence in said)

            await soon(restarted)
            assert instance.pids()[name] != pid
            assert any(one.kind == "service.died" and name in one.sentence for one in instance.happenings)
        await soon(lambda: instance.api.ready(instance.urls.orchestrator))
        await soon(lambda: instance.api.ready(instance.urls.provisioner))
        (same,) = await soon(lambda: active(instance))
        assert same["node_id"] == node["node_id"]


async def test_overrides_lie_over_the_configuration(tmp_path, make_config):
    overrides = {"pools.default.min": 0, "pools.default.mode": "observe"}
    async with Instance(tmp_path / "s", config_text=make_config(), overrides=overrides, free_ports=True) as instance:
        pool = await instance.api.get("/api/v1/pools/default")
        assert (pool["min"], pool["mode"]) == (0, "observe")


async def test_two_instances_run_side_by_side(tmp_path, make_config):
    first = Instance(tmp_path / "a", config_text=make_config(0), free_ports=True)
    second = Instance(tmp_path / "b", config_text=make_config(0), free_ports=True)
    await asyncio.gather(first.start(), second.start())
    try:
        assert {first.urls.orchestrator, first.urls.nats}.isdisjoint({second.urls.orchestrator, second.urls.nats})
    finally:
        await asyncio.gather(first.stop(), second.stop())


async def test_an_existing_nats_server_is_used_and_left_alone(tmp_path, make_config):
    nats = server.NatsServer(tmp_path / "nats", port=0, open_access=True)
    await nats.start()
    try:
        text = f'{make_config(0)}[nats]\nurl = "{nats.url}"\n'
        async with Instance(tmp_path / "s", config_text=text, free_ports=True) as instance:
            assert set(instance.pids()) == {"orchestrator", "provisioner"}
            assert instance.urls.nats == nats.url
        assert nats.pid is not None
    finally:
        await nats.stop()


async def test_without_a_provisioner_nothing_is_retired(tmp_path, make_config):
    text = make_config(0)
    async with Instance(tmp_path / "s", config_text=text, free_ports=True, provisioner=False) as instance:
        assert set(instance.pids()) == {"nats", "orchestrator"}
        assert instance.urls.provisioner is None
        assert await instance.retire() == []
        assert not (await instance.api.get("/api/v1/pools/default"))["retired"]


async def test_a_missing_nats_program_is_said_and_nothing_is_left(tmp_path, make_config, monkeypatch):
    def none():
        raise ConfigError("NATS_BINARY_MISSING", why="neither here nor there")

    monkeypatch.setattr(server, "find_binary", none)
    instance = Instance(tmp_path / "s", config_text=make_config(), free_ports=True)
    with pytest.raises(ConfigError) as caught:
        await instance.start()
    assert caught.value.code == "NATS_BINARY_MISSING"
    assert instance.pids() == {}
    assert instance.state.lock().path.exists()
    instance.state.unlock()
