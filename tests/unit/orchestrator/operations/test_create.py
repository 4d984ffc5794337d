"""Create operations: from the intent to an active node, and every way in which that can go wrong."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.testing import world
from secbeat.testing import settle
from secbeat.wire.jobs import JobError
from secbeat.wire.operations import OperationRecord
from secbeat.wire.webhook import WebhookBody


async def test_intent_and_node_are_on_disk_before_the_webhook_leaves():
    w = world()
    w.receiver.hold = asyncio.Event()
    async with w:
        (op,) = w.operations()
        stored = OperationRecord.decode(w.stored.data[f"op.{op.op_id}"])
        assert (stored.state, stored.attempts, stored.may_exist) == ("pending", 1, True)
        assert f"node.{op.node_id}" in w.stored.data
        assert not w.receiver.calls


async def test_the_body_is_the_guides_with_the_operation_beside_it():
    async with world() as w:
        body = w.receiver.calls[0].body
        assert body["reason"] == "BELOW_MIN_FLEET_SIZE"
        assert body["fleet_metrics"] == {
            "active_nodes": 0,
            "avg_cpu_usage": 0.0,
            "avg_memory_usage": 0.0,
            "total_connections": 0,
        }
        assert "failed_node_id" not in body
        parsed = WebhookBody.model_validate(body)
        (op,) = w.operations()
        assert (parsed.operation.op_id, parsed.operation.node_id) == (op.op_id, op.node_id)
        assert parsed.operation.epoch == w.lease.epoch
        assert parsed.operation.callback_url == f"http://127.0.0.1:3030/api/v1/operations/{op.op_id}/status"


async def test_a_create_passes_accepted_and_booting_and_ends_with_its_node_active():
    w = world()
    w.receiver.automatic = False
    async with w:
        (op,) = w.operations()
        assert (op.state, op.tracked) == ("accepted", True)
        assert w.states() == ["provisioning"]
        w.auto_join = False
        await w.receiver.finish(op.op_id)
        await settle()
        (op,) = w.operations()
        assert op.state == "booting"
        assert op.machine is not None
        assert w.core.context.records.node(op.node_id).machine == op.machine
        w.auto_join = True
        await w.join(op.op_id)
        await settle()
        (op,) = w.operations()
        assert (op.state, w.states()) == ("succeeded", ["active"])


async def test_a_node_that_joins_before_its_job_ends_gets_its_address_from_the_job():
    w = world()
    w.receiver.automatic = False
    async with w:
        (op,) = w.operations()
        await w.join(op.op_id)
        await w.clock.advance(5)
        assert w.states() == ["active"]
        assert w.operations()[0].state == "accepted"
        w.auto_join = False
        await w.receiver.finish(op.op_id)
        await w.clock.advance(3)
        assert w.operations()[0].state == "succeeded"
        assert w.core.context.records.node(op.node_id).management_host == "127.0.1.10"


@pytest.mark.parametrize("manner", ["unreachable", "timeout", "busy", "lost_answer"])
async def test_an_attempt_that_fails_is_repeated_under_the_same_id_and_makes_one_machine(manner):
    w = world()
    w.receiver.manner = manner
    async with w:
        await w.clock.advance(40)
        w.receiver.manner = "tracked"
        await w.until(lambda: w.operations()[0].state == "succeeded", within=120)
        assert w.states() == ["active"]
        assert len(set(w.receiver.called("/provision"))) == 1
        assert [len(made) for made in w.receiver.machines.values()] == [1]
        assert w.operations()[0].error is None


async def test_attempts_back_off_and_retry_after_is_honoured():
    w = world()
    w.receiver.manner = "busy"
    async with w:
        await w.clock.advance(6.9)
        assert len(w.receiver.calls) == 1
        await w.clock.advance(0.2)
        assert len(w.receiver.calls) == 2
        await w.clock.advance(300)
        assert 6 <= len(w.receiver.calls) <= 44
        assert w.operations()[0].error.code == "WEBHOOK_BUSY"


async def test_a_receiver_that_knows_no_ids_is_asked_once_and_counts_as_booting():
    w = world()
    w.receiver.manner = "untracked"
    async with w:
        (op,) = w.operations()
        assert (op.state, op.tracked, w.states()) == ("booting", False, ["booting"])
        await w.clock.advance(800)
        assert len(w.receiver.calls) == 1
        assert len(w.operations("create")) == 1


async def test_an_untracked_create_fails_at_its_deadline_and_its_machine_is_named_to_the_operator():
    w = world(pool={"boot_deadline_seconds": 60}, deprovisioning_webhook_url=None)
    w.receiver.manner = "untracked"
    async with w:
        first = w.operations()[0]
        await w.clock.advance(61)
        failed = w.core.operation(first.op_id)
        assert (failed.state, failed.error.code) == ("failed", "BOOT_DEADLINE")
        (destroy,) = w.operations("destroy")
        assert (destroy.state, destroy.error.code) == ("needs_operator", "CANNOT_DESTROY")
        assert f"default-{first.node_id[:8]}" in destroy.error.message
        assert w.core.context.records.node(first.node_id) is None
        await w.clock.advance(6)
        assert len(w.operations("create")) == 2, "the loop decides anew"
        assert len(set(w.receiver.called())) == 2


async def test_a_refused_create_fails_with_the_receivers_words_and_leaves_nothing():
    w = world()
    w.receiver.manner = "refused"
    async with w:
        op = w.operations()[0]
        assert (op.state, op.error.code, op.error.message) == ("failed", "WEBHOOK_REFUSED", "422: no")
        assert w.core.context.records.node(op.node_id) is None
        assert not w.operations("destroy")


async def test_a_failed_job_carries_its_code_and_task_into_the_operation_and_its_machine_is_destroyed():
    w = world()
    w.receiver.automatic = False
    async with w:
        (op,) = w.operations()
        trouble = JobError(code="PLAYBOOK_FAILED", message="no space left", task="Make the directory")
        await w.receiver.finish(op.op_id, "failed", error=trouble)
        w.receiver.automatic = True
        await w.until(lambda: w.states() == ["active"], within=60)
        failed = w.core.operation(op.op_id)
        assert failed.state == "failed"
        assert (failed.error.code, failed.error.task) == ("PLAYBOOK_FAILED", "Make the directory")
        assert w.receiver.called("/deprovision")
        destroyed = w.operations("destroy")[0]
        assert (destroyed.node_id, destroyed.reason, destroyed.state) == (op.node_id, "BOOT_FAILED", "succeeded")


async def test_a_boot_that_never_joins_fails_at_the_deadline_and_is_destroyed():
    w = world(pool={"boot_deadline_seconds": 120})
    w.auto_join = False
    async with w:
        (op,) = w.operations()
        await w.clock.advance(119)
        assert w.operations() == [w.core.operation(op.op_id)]
        assert w.core.operation(op.op_id).state == "booting"
        await w.clock.advance(3)
        assert w.core.operation(op.op_id).state == "failed"
        assert w.receiver.machines.get(op.node_id) is None


async def test_a_receiver_that_was_never_reached_leaves_nothing_to_destroy():
    w = world(pool={"boot_deadline_seconds": 30})
    w.receiver.manner = "unreachable"
    async with w:
        (op,) = w.operations()
        await w.clock.advance(31)
        failed = w.core.operation(op.op_id)
        assert (failed.state, failed.error.code) == ("failed", "WEBHOOK_UNREACHABLE")
        assert "connection refused" in failed.error.message
        assert not w.operations("destroy")
        assert w.core.pool("default").breaker.failures == 0, "an absent provisioner says nothing about boots"


async def test_a_slow_receiver_delays_only_its_own_operation():
    w = world(pool={"min": 2})
    w.receiver.hold = asyncio.Event()
    async with w:
        assert [op.state for op in w.operations()] == ["pending", "pending"]
        w.receiver.hold = None
        op = await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        await settle()
        assert w.core.operation(op.op_id).state == "succeeded"
        assert [w.core.operation(one.op_id).state for one in w.operations()[:2]] == ["pending", "pending"]


async def test_a_node_told_to_go_while_it_boots_withdraws_its_create():
    w = world()
    w.auto_join = False
    async with w:
        (op,) = w.operations()
        await w.core.drain(op.node_id, reason="MANUAL", by="somebody")
        await settle()
        assert w.core.operation(op.op_id).error.code == "NODE_WITHDRAWN"
        assert w.operations("destroy")[0].state == "succeeded"
        assert w.core.pool("default").breaker.failures == 0


async def test_a_lower_epoch_is_told_to_the_leadership_and_the_operation_goes_on_later():
    w = world()
    w.receiver.manner = "superseded"
    async with w:
        await w.clock.advance(1)
        assert w.superseded[:1] == [9]
        assert w.operations()[0].state == "pending"
        w.receiver.manner = "tracked"
        await w.until(lambda: w.states() == ["active"], within=30)


async def test_a_finished_boot_after_a_2xx_that_could_not_be_written_is_not_sent_again():
    w = world()
    w.receiver.manner = "untracked"
    w.receiver.hold = asyncio.Event()
    async with w:
        from secbeat.store import Unavailable

        w.core.context.records.bucket.next_error = Unavailable("disk full")
        w.receiver.hold.set()
        await settle()
        assert w.operations()[0].state == "pending"
        await w.clock.advance(30)
        assert w.operations()[0].state == "booting"
        assert len(w.receiver.calls) == 1


async def test_a_callback_report_stands_in_for_a_job_record():
    w = world()
    w.receiver.manner = "untracked"
    async with w:
        (op,) = w.operations()
        w.receiver.manner = "tracked"
        from secbeat.wire.jobs import JobRecord

        record = JobRecord(
            op_id=op.op_id,
            cluster_id=op.cluster_id,
            action="create",
            pool="default",
            node_id=op.node_id,
            state="failed",
            error=JobError(code="no code of ours", message="quota"),
            created_at=w.clock.now(),
            deadline=op.deadline,
        )
        await w.core.job_report(op.op_id, record)
        await settle()
        failed = w.core.operation(op.op_id)
        assert (failed.state, failed.error.code, failed.error.message) == ("failed", "JOB_FAILED", "quota")


async def test_an_ended_operation_still_says_how_often_it_called():
    w = world()
    w.receiver.manner = "busy"
    async with w:
        await w.until(lambda: w.operations()[0].attempts == 2, within=60)
        w.receiver.manner = "tracked"
        await w.until(lambda: w.operations()[0].state == "succeeded", within=60)
        assert (w.operations()[0].calls, w.operations()[0].attempts) == (3, 0)
