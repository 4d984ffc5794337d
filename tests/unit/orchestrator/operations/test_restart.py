"""Promise 1 and the fault catalogue O1 to O5: a crash anywhere is continued, with one machine per operation."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.testing import world
from secbeat.store import Unavailable
from secbeat.testing import settle


async def test_a_crash_before_the_webhook_sends_it_after_the_restart_under_the_same_id():
    w = world()
    w.receiver.hold = asyncio.Event()
    async with w:
        (before,) = w.operations()
        w.receiver.hold = None
        await w.restart()
        await w.until(lambda: w.states() == ["active"], within=60)
        assert [op.op_id for op in w.operations()] == [before.op_id]
        assert set(w.receiver.called()) == {before.op_id}


async def test_a_crash_after_a_lost_answer_asks_again_and_makes_no_second_machine():
    w = world()
    w.receiver.manner = "lost_answer"
    w.auto_join = False
    async with w:
        w.receiver.manner = "tracked"
        await w.restart()
        await w.clock.advance(90)
        assert len(w.operations()) == 1
        assert len(set(w.receiver.called())) == 1
        assert [len(made) for made in w.receiver.machines.values()] == [1]


@pytest.mark.parametrize("state", ["accepted", "booting"])
async def test_a_crash_while_a_machine_boots_buys_no_second_one(state):
    w = world()
    w.receiver.automatic = False
    w.auto_join = False
    async with w:
        (op,) = w.operations()
        if state == "booting":
            await w.receiver.finish(op.op_id)
            await settle()
        assert w.core.operation(op.op_id).state == state
        await w.restart()
        await w.clock.advance(60)
        assert len(w.operations()) == 1
        if state == "accepted":
            await w.receiver.finish(op.op_id)
            await settle()
        w.auto_join = True
        await w.join(op.op_id)
        await w.until(lambda: w.core.operation(op.op_id).state == "succeeded", within=10)
        assert len(w.receiver.calls) == 1


async def test_an_untracked_create_is_not_sent_again_after_a_restart():
    w = world()
    w.receiver.manner = "untracked"
    async with w:
        await w.restart()
        await w.clock.advance(120)
        assert len(w.receiver.calls) == 1
        assert len(w.operations()) == 1


async def test_a_crash_between_intent_and_node_record_is_mended():
    w = world()
    w.receiver.hold = asyncio.Event()
    async with w:
        (op,) = w.operations()
        await w.kill()
        await w.stored.delete(f"node.{op.node_id}")
        w.receiver.hold = None
        await w.boot()
        await w.until(lambda: w.states() == ["active"], within=60)
        assert w.active() == [op.node_id]


@pytest.mark.parametrize("moment", ["pending", "draining", "drained", "tearing_down"])
async def test_a_destroy_is_continued_wherever_it_was(moment):
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        await w.until(lambda: len(w.active()) == 1 and not w.core.operations(open_only=True), within=30)
        node_id = w.active()[0]
        node = w.nodes.all[node_id]
        node.drain_seconds = 20
        if moment == "pending":
            w.nodes.unreachable.add(node_id)
        if moment == "drained":
            w.receiver.manner = "unreachable"
        w.receiver.automatic = moment != "tearing_down"
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.until(lambda: w.core.operation(destroy.op_id).state == moment, within=60)
        await w.kill()
        w.receiver.manner = "tracked"
        w.nodes.unreachable.clear()
        await w.boot()
        if moment == "tearing_down":
            await w.receiver.finish(destroy.op_id)
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=120)
        assert w.core.operation(destroy.op_id).state == "succeeded"
        assert set(w.receiver.called("/deprovision")) == {destroy.op_id}
        assert len(w.operations("destroy")) == 1
        assert (w.states(), w.receiver.machines) == ([], {})


async def test_a_restart_in_mid_drain_tells_the_node_again_and_chooses_no_second_victim():
    async with world(pool={"min": 1, "scale_down_cooldown_seconds": 0, "warmup_seconds": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        await w.until(lambda: len(w.active()) == 2, within=30)
        w.load(0.05)
        for node in w.nodes.all.values():
            node.drain_seconds = 200
        await w.until(lambda: len(w.operations("destroy")) == 1, within=200)
        await w.clock.advance(1)
        victim = w.operations("destroy")[0].node_id
        w.nodes.all[victim].status = "Active"  # it has not heard: the answer was lost with the process
        await w.restart()
        await w.clock.advance(6)
        assert [told for told, _ in w.nodes.terminated] == [victim, victim]
        assert len(w.operations("destroy")) == 1


async def test_a_crash_between_the_end_and_the_nodes_removal_leaves_no_node():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        await w.until(lambda: len(w.active()) == 1, within=30)
        node_id = w.active()[0]
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        stored = w.stored.data[f"node.{node_id}"]
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=30)
        await w.kill()
        await w.stored.put(f"node.{node_id}", stored)
        await w.boot()
        await w.clock.advance(10)
        assert w.states() == []


async def test_a_crash_between_a_failed_create_and_its_destroy_still_destroys():
    w = world(pool={"boot_deadline_seconds": 30, "min": 0})
    w.auto_join = False
    async with w:
        op = await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        await settle()
        node = w.stored.data[f"node.{op.node_id}"]
        await w.until(lambda: w.core.operation(op.op_id).state == "failed", within=40)
        destroys = [key for key in w.stored.data if key.startswith("op.") and key != f"op.{op.op_id}"]
        await w.kill()
        for key in destroys:
            await w.stored.delete(key)
        await w.stored.put(f"node.{op.node_id}", node)
        w.receiver.machines[op.node_id] = [op.op_id]
        await w.boot()
        await w.until(lambda: w.states() == [] and w.receiver.machines == {}, within=30)


async def test_a_restart_knows_the_fleet_and_buys_nothing_while_no_heartbeat_was_heard():
    async with world(pool={"min": 3}) as w:
        await w.until(lambda: len(w.active()) == 3, within=60)
        for node in w.nodes.all.values():
            node.beating = False
        await w.kill()
        await w.boot()
        await w.clock.advance(10)
        assert len(w.operations()) == 3
        assert w.core.pool("default").active == 3


async def test_a_store_that_is_away_stops_everything_and_the_work_goes_on_when_it_is_back():
    async with world(pool={"min": 0}) as w:
        bucket = w.core.context.records.bucket
        real = bucket.put

        async def away(key, value):
            raise Unavailable("no quorum")

        bucket.put = away
        with pytest.raises(Unavailable):
            await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        assert (w.operations(), w.receiver.calls) == ([], [])
        bucket.put = real
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        await w.until(lambda: len(w.active()) == 1, within=30)


async def test_a_leader_that_lost_its_lease_sends_nothing_more():
    w = world()
    w.receiver.manner = "busy"
    async with w:
        sent = len(w.receiver.calls)
        w.lease.lose()
        await w.clock.advance(120)
        assert len(w.receiver.calls) == sent


async def test_a_frozen_leader_that_does_not_know_writes_nothing_and_sends_nothing():
    from secbeat.testing import MemoryLease

    w = world()
    w.receiver.manner = "busy"
    async with w:
        sent = len(w.receiver.calls)
        MemoryLease("other", held=False, leadership=w.leadership).acquire(unnoticed=True)
        assert w.lease.held
        await w.clock.advance(120)
        assert len(w.receiver.calls) == sent, "the attempt is counted on disk first, and the store refuses"
