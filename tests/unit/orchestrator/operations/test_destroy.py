"""Destroy operations: drain first, teardown after, and an end whatever the node does."""

from __future__ import annotations

import pytest

from orchestrator.testing import FakeNode, world
from secbeat.errors import RefusedError
from secbeat.testing import settle
from secbeat.wire.jobs import JobError


async def started(w):
    await w.until(lambda: w.states() == ["active"], within=30)
    await w.until(lambda: not w.core.operations(open_only=True), within=30)
    return w.active()[0]


async def test_the_node_counts_no_longer_from_the_intent_on_and_is_told_with_its_guards():
    async with world(pool={"min": 0}) as w:
        op = await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        assert w.states() == ["draining"]
        await settle()
        assert w.core.operation(destroy.op_id).state == "draining"
        ((told, request),) = w.nodes.terminated
        assert (told, request.node_id, request.epoch) == (node_id, node_id, w.lease.epoch)
        assert request.boot_id == w.nodes.all[node_id].boot_id
        assert request.grace_period_seconds == 60
        assert op.node_id == node_id


async def test_teardown_comes_after_the_final_heartbeat_and_the_closed_port():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.clock.advance(2)
        assert not w.receiver.called("/deprovision"), "it still serves"
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=20)
        assert w.receiver.called("/deprovision") == [destroy.op_id]
        assert w.receiver.machines == {}
        assert w.core.context.records.node(node_id) is None
        assert f"node.{node_id}" not in w.stored.data


async def test_a_final_heartbeat_with_the_port_still_open_waits_for_the_deadline():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        node = w.nodes.all[node_id]
        w.nodes.on_terminate = lambda _node: None
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.clock.advance(1)
        w.beat(node, "Terminating")
        node.beating = False
        await w.clock.advance(85)
        assert w.core.operation(destroy.op_id).state == "draining"
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=10)


async def test_a_drain_that_never_ends_is_torn_down_30_seconds_after_its_deadline():
    async with world(pool={"min": 0, "drain_deadline_seconds": 20}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        w.nodes.all[node_id].drain_seconds = 10_000
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.clock.advance(49)
        assert not w.receiver.called("/deprovision")
        await w.clock.advance(3)
        assert w.receiver.called("/deprovision") == [destroy.op_id]


async def test_a_node_that_cannot_be_told_is_tried_again_and_torn_down_after_the_deadline():
    async with world(pool={"min": 0, "drain_deadline_seconds": 20}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        w.nodes.unreachable.add(node_id)
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.clock.advance(40)
        op = w.core.operation(destroy.op_id)
        assert (op.state, op.error.code) == ("pending", "TERMINATE_FAILED")
        assert 3 <= len(w.nodes.terminated) <= 30
        await w.clock.advance(25)
        assert w.core.operation(destroy.op_id).state == "succeeded"


async def test_a_victim_killed_in_mid_drain_ends_by_silence_and_its_closed_port():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.clock.advance(1)
        w.crash(node_id)
        await w.clock.advance(5)
        assert w.core.operation(destroy.op_id).state == "draining", "not silent yet"
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=30)


async def test_draining_the_same_node_twice_is_one_operation():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        one = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        two = await w.core.drain(node_id, reason="MANUAL", by="another")
        assert one.op_id == two.op_id
        assert len(w.operations("destroy")) == 1


async def test_undrain_resumes_the_node_and_it_serves_again():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        w.nodes.all[node_id].drain_seconds = 100
        await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.clock.advance(2)
        op = await w.core.undrain(node_id, by="somebody")
        assert (op.state, w.states(), w.nodes.resumed) == ("cancelled", ["active"], [node_id])
        await w.clock.advance(120)
        assert w.states() == ["active"]
        assert not w.receiver.called("/deprovision")


async def test_undrain_after_the_listener_closed_is_refused_and_the_drain_goes_on():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        w.nodes.closed_listener.add(node_id)
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await settle()
        with pytest.raises(RefusedError) as refused:
            await w.core.undrain(node_id, by="somebody")
        assert refused.value.code == "DRAIN_TOO_LATE"
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=30)


async def test_without_a_receiver_that_can_destroy_the_machine_is_named_and_the_receiver_never_asked():
    async with world(pool={"min": 0}, deprovisioning_webhook_url=None) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=30)
        op = w.core.operation(destroy.op_id)
        assert op.state == "needs_operator"
        assert f"default-{node_id[:8]}" in op.error.message
        assert len(w.receiver.calls) == 1, "only the create"


async def test_a_teardown_that_fails_is_tried_again_by_a_further_operation_with_growing_pauses():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        w.receiver.automatic = False
        await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.until(lambda: w.operations("destroy")[-1].state == "tearing_down", within=30)
        await w.receiver.finish(
            w.operations("destroy")[-1].op_id, "failed", error=JobError(code="JOB_TIMEOUT", message="too slow")
        )
        await w.clock.advance(20)
        assert [op.state for op in w.operations("destroy")] == ["failed"]
        assert w.states() == ["terminating"]
        w.receiver.automatic = True
        await w.until(lambda: w.states() == [], within=60)
        assert [op.state for op in w.operations("destroy")] == ["failed", "succeeded"]


async def test_a_refused_teardown_needs_an_operator_and_the_node_stays_visible():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        w.receiver.manner = "refused"
        destroy = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=30)
        assert w.core.operation(destroy.op_id).state == "needs_operator"
        await w.clock.advance(300)
        assert w.states() == ["terminating"]
        w.receiver.manner = "tracked"
        again = await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.until(lambda: w.core.operation(again.op_id).state == "succeeded", within=30)


async def test_a_drain_never_blocks_a_scale_up():
    async with world(pool={"min": 2}, max_open_operations_per_pool=2) as w:
        await w.until(lambda: len(w.active()) == 2, within=30)
        for node in w.nodes.all.values():
            node.drain_seconds = 10_000
        for node_id in w.active():
            await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await w.until(lambda: len(w.active()) == 2, within=30)
        assert len([op for op in w.operations("destroy") if not op.ended]) == 2


async def test_the_cap_refuses_an_operators_drain_with_the_numbers():
    async with world(pool={"min": 2}, max_open_operations_per_pool=1) as w:
        await w.until(lambda: len(w.active()) == 2, within=60)
        one, two = w.active()
        w.nodes.all[one].drain_seconds = 10_000
        await w.core.drain(one, reason="MANUAL", by="somebody")
        with pytest.raises(RefusedError) as refused:
            await w.core.drain(two, reason="MANUAL", by="somebody")
        assert refused.value.code == "OPEN_OPERATIONS_LIMIT"


async def test_a_node_terminated_on_its_own_port_is_torn_down_and_nothing_is_called_a_failure():
    async with world() as w:
        node_id = await started(w)
        node = w.nodes.all[node_id]
        node.status = "Draining"
        await w.clock.advance(12)
        (destroy,) = w.operations("destroy")
        assert (destroy.reason, destroy.state, w.nodes.terminated) == ("NODE_LEFT", "draining", [])
        node.alive = node.beating = False
        w.beat(node, "Terminating")
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=10)
        await w.until(lambda: len(w.active()) == 1, within=30)
        assert [op.reason for op in w.operations("create")] == ["BELOW_MIN_FLEET_SIZE"] * 2


async def test_a_process_that_came_up_anew_in_mid_drain_is_told_again():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        node_id = await started(w)
        w.nodes.all[node_id].drain_seconds = 10_000
        await w.core.drain(node_id, reason="MANUAL", by="somebody")
        await settle()
        w.crash(node_id)
        anew = FakeNode(node_id, "11111111-2222-4333-8444-555555555555", "default")
        w.nodes.all[node_id] = anew
        w.beat(anew)
        await w.clock.advance(3)
        assert [request.boot_id for _, request in w.nodes.terminated][-1] == anew.boot_id
        assert anew.status == "Draining"
