"""Verdicts of death, and the many silences that are none."""

from __future__ import annotations

import pytest

from orchestrator.testing import REGISTRATION, FakeNode, world
from secbeat import ids
from secbeat.testing import settle
from secbeat.wire.pools import ResumeRequest
from secbeat.wire.registration import RegisterRequest


async def fleet(size, **keys):
    w = world(pool={"min": size, "max": 20, "scaling_check_interval_seconds": 10}, **keys)
    await w.boot()
    await w.until(lambda: len(w.active()) == size, within=60)
    await w.until(lambda: not w.core.operations(open_only=True), within=60)
    await w.clock.advance(30)
    return w


def kinds(w):
    import json

    return [json.loads(event.payload)["kind"] for event in w.core.context.events.newest(200)]


async def test_a_crashed_node_is_replaced_and_its_machine_destroyed():
    w = await fleet(3)
    victim = w.active()[0]
    w.crash(victim)
    await w.until(lambda: victim not in w.active(), within=30)
    await w.until(lambda: len(w.active()) == 3 and victim not in w.receiver.machines, within=60)
    create = w.operations("create")[-1]
    assert (create.reason, create.failed_node_id) == ("UNEXPECTED_NODE_FAILURE", victim)
    body = next(call.body for call in w.receiver.calls if call.op_id == create.op_id)
    assert body["failed_node_id"] == victim
    assert body["failed_node_ip"] == "127.0.0.1"
    assert "fleet_metrics" not in body
    assert len(w.operations("create")) == 4
    assert w.core.context.records.node(victim) is None
    await w.close()


async def test_a_silent_node_whose_own_port_answers_stays():
    w = await fleet(3)
    quiet = w.active()[0]
    w.nodes.all[quiet].beating = False
    await w.clock.advance(600)
    assert quiet in w.active()
    assert len(w.operations()) == 3
    assert kinds(w).count("node.isolated") == 1
    assert "port has been tried" in w.core.why_node(quiet).sentence
    await w.close()


async def test_a_node_that_is_unreachable_and_comes_back_is_kept():
    w = await fleet(3)
    node = w.nodes.all[w.active()[0]]
    node.beating, node.alive = False, False
    await w.until(lambda: "unreachable" in w.states(), within=60, step=1)
    node.beating = node.alive = True
    w.beat(node)
    await settle()
    assert w.states() == ["active"] * 3
    assert len(w.operations()) == 3
    await w.close()


async def test_mass_silence_freezes_the_pool_and_thaws_when_heartbeats_return():
    w = await fleet(10)
    for node in list(w.nodes.all.values())[:5]:
        node.beating = node.alive = False
    await w.clock.advance(300)
    assert len(w.operations()) == 10
    assert w.core.pool("default").frozen_since is not None
    assert w.core.decisions("default")[-1].code == "MASS_SILENCE"
    assert kinds(w).count("pool.frozen") == 1
    await w.restart()
    assert w.core.pool("default").frozen_since is not None, "a freeze outlives a restart"
    await w.clock.advance(12)
    for node in w.nodes.all.values():
        node.beating = node.alive = True
    await w.clock.advance(30)
    assert w.core.pool("default").frozen_since is None
    assert (len(w.operations()), w.states()) == (10, ["active"] * 10)
    await w.close()


async def test_an_operators_resume_says_that_the_silence_is_real_and_the_dead_are_replaced():
    w = await fleet(4)
    for node in list(w.nodes.all.values())[:3]:
        node.beating = node.alive = False
    await w.clock.advance(120)
    assert w.core.pool("default").frozen_since is not None
    await w.core.resume("default", ResumeRequest(), by="operator")
    await w.until(lambda: len(w.operations("create")) == 7, within=300)
    await w.until(lambda: len(w.active()) == 4 and len(w.receiver.machines) == 4, within=60)
    assert len(w.operations("create")) == 7
    await w.close()


async def test_dead_nodes_are_replaced_one_per_interval():
    w = await fleet(10)
    dead = w.active()[:2]
    for node_id in dead:
        w.crash(node_id)
    await w.until(lambda: len(w.operations("create")) == 11, within=60)
    await w.clock.advance(8)
    assert len(w.operations("create")) == 11
    await w.until(lambda: len(w.operations("create")) == 12, within=10)
    await w.close()


async def test_a_nats_outage_is_nobodys_death_and_neither_is_its_end():
    w = await fleet(3)
    w.messaging.connected = False
    for node in w.nodes.all.values():
        w.nodes.unreachable.add(node.node_id)
    await w.clock.advance(600)
    w.messaging.connected = True
    await w.clock.advance(9)
    w.nodes.unreachable.clear()
    await w.clock.advance(60)
    assert (w.states(), len(w.operations())) == (["active"] * 3, 3)
    await w.close()


async def test_no_verdict_while_our_own_canary_does_not_come_back():
    w = await fleet(3)
    real = w.messaging.publish

    async def deaf(subject, payload):
        if not subject.endswith("canary"):
            await real(subject, payload)

    w.messaging.publish = deaf
    w.crash(w.active()[0])
    await w.clock.advance(300)
    assert w.states() == ["active"] * 3
    w.messaging.publish = real
    await w.until(lambda: len(w.operations("create")) == 4, within=120)
    await w.close()


async def test_no_verdict_right_after_a_restart():
    w = await fleet(3)
    await w.kill()
    victim = next(iter(w.nodes.all))
    w.crash(victim)
    await w.boot()
    await w.clock.advance(14)
    assert w.states() == ["active"] * 3
    await w.until(lambda: len(w.operations("create")) == 4, within=120)
    await w.close()


async def test_a_dead_node_above_need_is_removed_without_a_replacement():
    w = await fleet(1)
    from secbeat.wire.pools import ScaleRequest

    await w.core.scale("default", ScaleRequest(size=3), by="x")
    await w.until(lambda: len(w.active()) == 3, within=60)
    victim = w.active()[0]
    w.crash(victim)
    await w.core.scale("default", ScaleRequest(size=2), by="x")
    await w.until(lambda: len(w.receiver.machines) == 2, within=200)
    assert len(w.active()) == 2
    await w.close()


async def test_a_restarted_original_node_does_not_leave_its_old_self_behind():
    async with world(pool={"min": 0}) as w:
        request = RegisterRequest.model_validate(REGISTRATION)
        registered = []
        for _ in range(2):
            answer = await w.core.register(request, peer="127.0.0.1", host="h", token=None)
            node = FakeNode(answer.node_id, ids.new_boot_id(), "default")
            w.nodes.all[node.node_id] = node
            w.beat(node)
            registered.append(node)
            await w.clock.advance(20)
        registered[0].beating = False  # ended; what answers on its port is the second one
        await w.until(lambda: w.active() == [registered[1].node_id], within=400)
        assert w.operations() == []


@pytest.mark.parametrize("signal", ["heartbeat before registering"])
async def test_a_heartbeat_of_a_node_that_never_registered_activates_nothing(signal):
    w = world()
    w.auto_join = False
    async with w:
        (op,) = w.operations()
        w.beat(FakeNode(op.node_id, ids.new_boot_id(), "default"))
        await settle()
        assert w.states() == ["booting"]
