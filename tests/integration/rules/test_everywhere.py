"""From a POST to every node and back, over restarts of everything."""

from __future__ import annotations

import asyncio
import json
import time

from secbeat import bus, subjects
from secbeat.settings import NatsSettings
from tests.integration.rules.conftest import eventually

PASSED = 502  # nobody listens behind the nodes: what is not blocked is a bad gateway
CLIENT, OTHER = "127.0.0.9", "127.0.0.10"


async def test_a_block_reaches_every_node_outlives_every_restart_and_ends_everywhere(fleet):
    await asyncio.gather(fleet.start_node(), fleet.start_node())
    for node in fleet.nodes:
        await eventually(node.ready, what="a node in rotation")
    assert await fleet.everywhere(CLIENT, PASSED)

    # Unloaded it takes some 50 ms; the bound is for a machine that does other things as well.
    await fleet.block(CLIENT)
    assert await fleet.everywhere(CLIENT, 403, within=10) < 10
    assert [await node.answer(OTHER) for node in fleet.nodes] == [PASSED, PASSED]

    # A new node blocks from its first request in rotation.
    late = await fleet.start_node()
    await eventually(late.ready, what="a third node in rotation")
    assert await late.answer(CLIENT) == 403

    # Everything restarts but the nodes.
    _, before = await fleet.call("GET", "/api/v1/rules/snapshot")
    await fleet.kill_orchestrator()
    await fleet.nats.stop()
    assert {await node.answer(CLIENT) for node in fleet.nodes} == {403}
    await fleet.nats.start()
    await fleet.start_orchestrator()
    _, after = await fleet.call("GET", "/api/v1/rules/snapshot")
    assert (after["version"], after["blocked"]) == (before["version"], before["blocked"])

    # Another block, with an end; the first one is taken back.
    await fleet.block(OTHER, ttl=8)
    ends = time.time() + 8
    await fleet.everywhere(OTHER, 403)
    status, answer = await fleet.call("DELETE", f"/api/v1/rules/block_ip/{CLIENT}")
    assert (status, answer["success"]) == (200, True)
    await fleet.everywhere(CLIENT, PASSED)
    await fleet.everywhere(OTHER, PASSED)
    assert time.time() >= ends - 0.5
    _, last = await fleet.call("GET", "/api/v1/rules/snapshot")
    assert last["version"] >= before["version"] + 2


async def test_a_node_that_missed_a_difference_fetches_and_one_that_cannot_read_the_list_stays_out(fleet):
    node = await fleet.start_node()
    await eventually(node.ready, what="a node in rotation")
    identity = fleet.nats.identity
    admin = await bus.connect(NatsSettings(url=fleet.nats.url, creds_file=identity.creds_file("admin")), name="test")
    original = await bus.connect(NatsSettings(url=fleet.nats.url), name="original", jetstream=False)
    try:
        commands = []
        await original.messaging.subscribe(
            subjects.LEGACY_CONTROL, lambda _subject, payload: commands.append(json.loads(payload))
        )
        await asyncio.sleep(0.2)  # the subscription reaches the server
        _, nodes = await fleet.call("GET", "/api/v1/nodes")
        (node_id,) = (one["node_id"] for one in nodes)
        # A difference that begins after what the node has: it must ask for what lies between, and finds nothing new.
        gap = {"v": 1, "version": 9, "since": 7, "blocked": [{"ip": CLIENT, "expires_at": "2100-01-01T00:00:00Z"}]}
        await admin.messaging.publish(subjects.command(node_id, "blocklist"), json.dumps(gap).encode())
        await fleet.block(OTHER)
        await fleet.everywhere(OTHER, 403)
        assert await node.answer(CLIENT) == PASSED
        # The original's command, to a client without a login.
        command = await eventually(lambda: commands, what="the original's command")
        assert (command[0]["action"], command[0]["target"], command[0]["ttl_seconds"]) == (
            "ADD_DYNAMIC_RULE", OTHER, 600,
        )  # fmt: skip
        # Our own addresses and the configured ones cannot be blocked.
        for ip in ("127.0.0.1", "192.0.2.7"):
            _, answer = await fleet.call("POST", "/api/v1/rules/block_ip", {"ip": ip, "reason": "x"})
            assert (answer["success"], "RULE_PROTECTED" in answer["message"]) == (False, True)
    finally:
        await original.close()
        await admin.close()
    # A node whose orchestrator is away when it starts anew says why it is not in rotation.
    await fleet.kill_orchestrator()
    node.process.terminate()
    await node.process.wait()
    node.process = await fleet._spawn("node", node.log.parent / "node.toml", node.log)
    await eventually(lambda: "Not in rotation yet" in node.log.read_text(), what="the reason")
    assert await node.answer("127.0.0.1", "/.secbeat/ready") == 503
    await fleet.start_orchestrator()
    await eventually(node.ready, what="the node in rotation again")
    assert await node.answer(OTHER) == 403
