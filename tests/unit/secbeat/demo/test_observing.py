from __future__ import annotations

import json
import subprocess
import sys

import aiohttp
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secbeat import ids
from secbeat.demo.observing import Api, Heartbeats, Processes, leftovers, survivors
from secbeat.demo.reporting import DemoFailed
from secbeat.testing import MemoryBucket
from secbeat.wire.heartbeat import HeartbeatFrame, MetricsFrame, encode_frame


@pytest.fixture
def sleeper(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    machine = tmp_path / "demo-12345678"
    machine.mkdir()
    (machine / "pid").write_text(json.dumps({"pid": process.pid, "started": 0}))
    yield process
    process.kill()
    process.wait()


def test_machines_are_found_by_their_pid_files_and_remembered_after_their_end(tmp_path, sleeper):
    processes = Processes(tmp_path)
    assert [process.pid for process in processes.look().values()] == [sleeper.pid]
    assert processes.directories() == ["demo-12345678"]
    sleeper.kill()
    sleeper.wait()
    assert processes.look() == {}
    assert list(processes.known) == ["demo-12345678"]


def test_a_directory_without_a_readable_pid_is_no_machine_yet(tmp_path):
    (tmp_path / "demo-1").mkdir()
    (tmp_path / "demo-2").mkdir()
    (tmp_path / "demo-2" / "pid").write_text("{")
    assert Processes(tmp_path).look() == {}


async def test_survivors_are_named_and_the_dead_are_not(sleeper):
    running = psutil.Process(sleeper.pid)
    assert await survivors({"origin": running}, 0.1) == [f"process origin ({sleeper.pid})"]
    sleeper.kill()
    sleeper.wait()
    assert await survivors({"origin": running}, 5) == []


async def test_left_are_nodes_and_operations_that_have_not_ended():
    bucket = MemoryBucket()
    await bucket.create("node.1", b"{}")
    for number, state in enumerate(("succeeded", "failed", "cancelled", "needs_operator", "draining", "pending")):
        await bucket.create(f"op.{number}", json.dumps({"state": state}).encode())
    await bucket.create("pool.demo", b"{}")
    assert await leftovers(bucket) == ["key node.1", "operation 4 in state draining", "operation 5 in state pending"]


def test_the_last_status_of_each_node_is_kept_and_nonsense_is_not_a_heartbeat():
    heartbeats = Heartbeats()
    node_id = ids.new_node_id()
    for seq, status in enumerate(("Active", "Draining", "Terminating")):
        frame = HeartbeatFrame(
            node_id=node_id, boot_id=ids.new_boot_id(), seq=seq, sent_at="2026-01-01T00:00:00.000Z", status=status,
            pool="demo", metrics=MetricsFrame(cpu=0.1, memory=0.1, connections=0),
        )  # fmt: skip
        heartbeats.on_message("", encode_frame(frame))
    heartbeats.on_message("", b"\xff not json")
    assert list(heartbeats.nodes) == [node_id]
    assert (heartbeats.nodes[node_id].status, heartbeats.nodes[node_id].count) == ("Terminating", 3)


async def test_an_api_that_refuses_or_is_away_fails_the_demo_with_the_path():
    async def refuse(_request):
        return web.json_response({"title": "no"}, status=503)

    app = web.Application()
    app.router.add_get("/api/v1/nodes", refuse)
    async with aiohttp.ClientSession() as session:
        async with TestServer(app) as server:
            with pytest.raises(DemoFailed, match=r"/api/v1/nodes.* 503"):
                await Api(session, str(server.make_url("")).rstrip("/")).nodes()
        with pytest.raises(DemoFailed, match="GET /api/v1/nodes"):
            await Api(session, "http://127.0.0.1:9").nodes()
