"""Where an operation's time went: stages that add up to the wall time, whatever the records say."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.operations import stages, states
from orchestrator.testing import world
from secbeat import ids
from secbeat.testing import FakeClock
from secbeat.wire.jobs import JobRecord
from secbeat.wire.operations import OperationRecord

START = FakeClock().now()


def after(seconds):
    return START + timedelta(seconds=seconds)


def operation(**fields):
    given = {
        "op_id": ids.new_op_id(), "cluster_id": ids.new_cluster_id(), "action": "create", "pool": "default",
        "node_id": ids.new_node_id(), "reason": "MANUAL", "created_at": START, "updated_at": START,
        "deadline": after(900),
    }  # fmt: skip
    return OperationRecord(**given | fields)


def job(op, **fields):
    names = ("op_id", "cluster_id", "action", "pool", "node_id")
    return JobRecord(**{name: getattr(op, name) for name in names}, created_at=START, deadline=op.deadline, **fields)


def told(op):
    return [(stage.name, stage.seconds) for stage in op.stages]


def wall(op):
    cut = timedelta(milliseconds=1)
    return (op.ended_at - START) // cut - (op.created_at - START) // cut


async def test_each_stage_of_a_scale_up_is_as_long_as_it_was():
    one = world(pool={"min": 1, "max": 2})
    one.receiver.automatic = one.auto_join = False
    async with one:
        (op,) = one.operations("create")
        assert op.state == "accepted"
        await one.clock.advance(4.0)
        await one.receiver.finish(op.op_id)
        await one.until(lambda: one.operations("create")[0].state == "booting")
        await one.clock.advance(20.0)
        one.auto_join = True
        await one.join(op.op_id)
        await one.until(lambda: one.operations("create")[0].state == "succeeded")
        (ended,) = one.operations("create")
        found = dict(told(ended))
        assert list(found) == ["webhook", "queue", "engine", "boot", "join", "rotation"]
        assert (found["webhook"], found["queue"] + found["engine"]) == (0.0, 4.0)
        assert 20.0 <= found["boot"] <= 20.5
        assert sum(round(seconds * 1000) for seconds in found.values()) == wall(ended)
        total = one.core.context.metrics.registry.get_sample_value(
            "secbeat_operation_seconds_sum", {"pool": "default", "action": "create"}
        )
        assert total == pytest.approx(sum(found.values()))


async def test_each_stage_of_a_scale_down_is_as_long_as_it_was():
    async with world(pool={"min": 1, "max": 2}) as one:
        await one.until(lambda: len(one.active()) == 1)
        (node,) = one.nodes.all.values()
        node.drain_seconds = 7.0
        await one.core.drain(node.node_id, reason="MANUAL", by="test")
        await one.until(lambda: one.operations("destroy")[0].state == "succeeded")
        (ended,) = one.operations("destroy")
        found = dict(told(ended))
        assert list(found) == ["notice", "drain", "webhook", "queue", "teardown", "confirm"]
        assert 7.0 <= found["drain"] < 9.5
        assert sum(round(seconds * 1000) for seconds in found.values()) == wall(ended)


def test_a_receiver_without_jobs_leaves_out_what_nobody_told():
    op = states.advance(operation(), "booting", now=after(2))
    op = states.advance(op, "succeeded", now=after(30))
    assert told(op) == [("webhook", 2.0), ("rotation", 28.0)]


def test_the_stage_in_which_it_failed_takes_the_rest():
    op = states.advance(operation(), "accepted", now=after(1))
    op = op.model_copy(update={"stages": stages.from_job(op, job(op, started_at=after(3)))})
    op = states.advance(op, "failed", now=after(63))
    assert told(op) == [("webhook", 1.0), ("queue", 2.0), ("engine", 60.0)]


def test_a_machine_that_a_person_starts_begins_with_the_boot():
    op = states.advance(operation(by_hand=True, state="booting"), "failed", now=after(900))
    assert told(op) == [("boot", 900.0)]


def test_a_clock_that_is_ahead_makes_no_stage_longer_than_the_whole():
    op = states.advance(operation(), "accepted", now=after(1))
    ahead = job(op, started_at=after(3600), finished_at=after(3610), state="succeeded")
    op = op.model_copy(update={"stages": stages.from_job(op, ahead)})
    op = states.advance(op, "booting", now=after(20))
    op = states.advance(op, "succeeded", now=after(40))
    assert told(op) == [("webhook", 1.0), ("queue", 39.0), ("engine", 0.0), ("rotation", 0.0)]


moments = st.none() | st.floats(-1e4, 1e4).map(after)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1e4), moments, moments, moments, st.floats(0, 1e4))
def test_stages_add_up_whatever_other_clocks_say(accepted, started, finished, registered, more):
    op = states.advance(operation(), "accepted", now=after(accepted))
    record = job(op, started_at=started, finished_at=finished, state="succeeded")
    op = op.model_copy(update={"stages": stages.from_job(op, record)})
    node = _Node(registered)
    op = op.model_copy(update={"stages": stages.from_node(op, node)})
    op = states.advance(op, "succeeded", now=after(accepted + more))
    assert sum(round(seconds * 1000) for _, seconds in told(op)) == wall(op)
    assert all(seconds >= 0 for _, seconds in told(op))


class _Node:
    def __init__(self, registered):
        self.registered_at, self.state, self.state_since = registered, "active", registered
