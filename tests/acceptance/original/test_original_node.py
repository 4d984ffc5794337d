"""An original's node in a fleet of real processes: its recorded bytes, our kill and restart, its end.

The node here is what was recorded of the original: one connection, lower-case headers, no User-Agent, an identity that
it got once and cannot change, a management port that knows the published token, and no word when it ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from contextlib import AsyncExitStack

import pytest

from secbeat import bus, subjects
from secbeat.auth import TokenBook
from secbeat.bus.server import NatsServer
from secbeat.settings import NatsSettings
from tests.acceptance.crashes.fleet import eventually
from tests.acceptance.support import free_port
from tests.contract import raw
from tests.contract.original.programs import TOKEN, Management, Receiver

pytestmark = pytest.mark.timeout(120)

CONFIG = """
[orchestrator]
listen_addr = "127.0.0.1:{port}"
metrics_addr = "127.0.0.1:0"
state_dir = "{state}"
provisioning_webhook_url = "{receiver}/provision"
[pools.default]
min = 1
scaling_check_interval_seconds = 0.5
[management]
auth_token = "{token}"
allow_default_token = true
[nats]
url = "{nats}"
"""
RECORDED_ID = raw.request("node_session", 1).json()["node_id"]


class OriginalNode:
    """The recorded session from an address of its own, one request at a time."""

    def __init__(self, port: int, address: str) -> None:
        self._port, self._address = port, address
        self._connection = None
        self.node_id = RECORDED_ID

    async def _send(self, message):
        if self._connection is None:
            self._connection = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._address, 0))
        reader, writer = self._connection
        writer.write(raw.encode(message))
        async with asyncio.timeout(15):
            return await raw.read_message(reader)

    async def register(self):
        answer = await self._send(raw.request("node_session"))
        assert answer.status == 200, answer
        self.node_id = answer.json()["node_id"]

    async def beat(self, status="Active"):
        """One recorded heartbeat under its own id; the status of the answer."""
        recorded = raw.request("node_session", 1)
        body = recorded.body.replace(RECORDED_ID.encode(), self.node_id.encode()).replace(b"Active", status.encode())
        try:
            return (await self._send(raw.Message(recorded.first, recorded.headers, body))).status
        except (OSError, asyncio.IncompleteReadError):
            self.close()  # its client opens another connection at the next heartbeat
            return None

    def close(self):
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None


@pytest.fixture
async def stack():
    async with AsyncExitStack() as made:
        yield made


@pytest.fixture
async def nats(tmp_path, stack):
    server = NatsServer(tmp_path / "nats", port=0, open_access=True)
    await server.start()
    stack.push_async_callback(server.stop)
    return server


async def test_an_originals_node_is_taken_in_kept_over_our_crash_and_told_to_go(place, nats, stack):
    state, port = place.root / "state", free_port()
    token = TokenBook.issue(state / "secrets" / "tokens.json", name="operator", scope="admin")
    receiver = await Receiver().start()
    stack.push_async_callback(receiver.close)
    address = f"127.{100 + os.getpid() // 250 % 100}.{os.getpid() % 250}.251"
    management = await Management().start(address, 9999)
    stack.push_async_callback(management.close)
    values = {"port": port, "state": state, "receiver": receiver.url, "token": TOKEN, "nats": nats.url}
    config = place.write("secbeat.toml", CONFIG.format(**values))
    starts = itertools.count(1)

    async def orchestrator():
        """Start it; it leads."""
        command = ["secbeat", "orchestrator", "--config", config]
        service = place.start(command, name=f"orchestrator {next(starts)}")

        async def leads():
            return (await raw.ask(port, raw.original("GET", "/readyz"))).status == 200

        await eventually(leads, "the orchestrator leads")
        return service

    async def call(method, path, body=None):
        return await raw.ask(port, raw.original(method, path, body, token=token))

    async def listed():
        return {node["node_id"]: node for node in (await call("GET", "/api/v1/nodes")).json()}

    service = await orchestrator()
    await eventually(lambda: receiver.requests, "a webhook for the missing node")

    # The receiver's answer says nothing of an operation: the node that registers next is the one that was asked for.
    node = OriginalNode(port, address)
    stack.callback(node.close)
    await node.register()
    assert node.node_id == receiver.requests[0].json()["operation"]["node_id"]
    assert [await node.beat() for _ in range(3)] == [200] * 3

    async def active():
        return (await listed())[node.node_id]["status"] == "Active"

    await eventually(active, "the node is active")

    # Our crash: it never registers again, and nobody is bought in its place. Its stuck flag means nothing.
    service.kill()
    assert await node.beat() is None
    await orchestrator()
    assert [await node.beat(status) for status in ("Dead", "Draining", "Active")] == [200] * 3
    found = (await listed())[node.node_id]
    assert (found["status"], found["address"], found["public_ip"]) == ("Active", address, "127.0.0.1")
    assert len(receiver.requests) == 1

    # One whose record is lost, or who came before us, is adopted.
    stranger = OriginalNode(port, address)
    stack.callback(stranger.close)
    assert await stranger.beat("Draining") == 200
    assert {node.node_id, RECORDED_ID} == set(await listed())

    # A block reaches it in its own words.
    heard = []
    client = await bus.connect(NatsSettings(url=nats.url), name="original", jetstream=False)
    stack.push_async_callback(client.close)
    await client.messaging.subscribe(subjects.LEGACY_CONTROL, lambda _, payload: heard.append(json.loads(payload)))
    await eventually(lambda: client.connected, "the original's NATS connection")

    async def blocked():
        await raw.ask(port, raw.recorded("block_ip.request.bin"))
        return heard

    await eventually(blocked, "the block")
    assert (heard[0]["action"], heard[0]["target"]) == ("ADD_DYNAMIC_RULE", "203.0.113.7")

    # And it is told to go as the original tells it.
    assert (await call("POST", f"/api/v1/nodes/{node.node_id}/terminate")).status == 200
    await eventually(lambda: management.terminated, "the call on its port")
    sent = management.requests[-1]
    assert sent.header("authorization") == f"Bearer {TOKEN}"
    assert set(sent.json()) == {"reason", "timestamp", "grace_period_seconds"}
    assert (await listed())[node.node_id]["status"] == "Draining"
    assert await node.beat("Active") == 200
    assert (await listed())[node.node_id]["status"] == "Draining"
