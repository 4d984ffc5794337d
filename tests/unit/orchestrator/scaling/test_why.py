from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest

import orchestrator.scaling
from orchestrator.scaling import why_node, why_pool
from secbeat import catalogue
from secbeat.catalogue.scaling import ENTRIES
from secbeat.settings import PoolSettings
from secbeat.wire.nodes import NodeRecord, NodeState
from secbeat.wire.operations import OperationError, OperationRecord


@pytest.fixture
def record(pool, uid):
    now = pool().now
    return NodeRecord(node_id=uid(1), pool="web", state="active", state_since=now, created_at=now)


def test_a_pool_that_was_never_evaluated_says_so():
    assert "not evaluated yet" in why_pool("web", None).sentence


def test_a_pools_why_has_the_sentence_the_other_limits_and_a_remedy(pool, seen):
    fleet = pool(max=2)
    fleet.tick(seen(0.9, pending=1, active=1))
    decision = fleet.ask(seen(0.9, pending=1, active=1))
    why = why_pool("web", decision)
    assert why.sentence.startswith("holding at 2: cpu 90 % of 1 node, but the pool has 2 nodes and max is 2")
    assert "also: cpu 90 % of 1 node, but 1 node on the way" in why.sentence
    assert why.fix == catalogue.lookup("AT_MAX").remedy
    assert why.decision == decision


def test_a_pools_why_counts_equal_checks(pool, seen):
    decision = pool().ask(seen(0.5))
    decision = decision.model_copy(update={"equal_count": 12, "equal_since": decision.at - timedelta(minutes=11)})
    why = why_pool("web", decision)
    assert why.sentence.endswith("(the same since 2026-01-01T11:49:00.000Z, 12 checks)")
    assert why.fix is None


@pytest.mark.parametrize(
    ("mode", "words"), [("active", "growing at 1: "), ("observe", "observing (would be growing) at 1: ")]
)
def test_a_pools_why_says_whether_it_acts(pool, seen, mode, words):
    assert why_pool("web", pool(min=2, mode=mode).ask(seen(0.5, active=1))).sentence.startswith(words)


def test_an_active_node_is_there_because_the_pool_holds(record, pool, seen):
    why = why_node(record, decision=pool(min=2).ask(seen(0.1)), policy=PoolSettings(min=2))
    assert (why.state, why.blocked_by) == ("active", ("AT_MIN",))
    assert "the pool holds at 2: cpu 10 % of 2 nodes, but the pool has 2 nodes and min is 2" in why.sentence


def test_the_chosen_node_and_the_others(record, pool, seen, uid):
    decision = pool().tick(seen(0.1), times=5)
    assert "it is chosen to leave" in why_node(record, decision=decision).sentence
    other = record.model_copy(update={"node_id": uid(2), "protected": True})
    why = why_node(other, silent=True, decision=decision)
    assert f"node {uid(1)} leaves first" in why.sentence
    assert why.blocked_by == ("SILENT", "PROTECTED")


def test_in_observe_the_node_would_be_chosen(record, pool, seen):
    decision = pool(mode="observe").tick(seen(0.1), times=5)
    assert "it would be chosen to leave" in why_node(record, decision=decision).sentence


def test_a_node_in_an_operation_says_where_that_stands(record, pool, uid):
    now = pool().now
    operation = OperationRecord(
        op_id="01K2XG3Q4R5S6T7V8W9X0Y1Z2A", cluster_id=uid(9), action="destroy", pool="web", node_id=uid(1),
        reason="LOW_FLEET_CPU_LOAD", state="draining", created_at=now, deadline=now, updated_at=now, stage="waiting",
        error=OperationError(code="SILENT", message="the port does not answer"),
    )  # fmt: skip
    why = why_node(record.model_copy(update={"state": "draining"}), operation=operation)
    assert "draining since 2026-01-01T12:00:00.000Z: it finishes its requests" in why.sentence
    assert "(destroy) is draining: waiting; the port does not answer" in why.sentence
    assert why.blocked_by == ("SILENT",)


@pytest.mark.parametrize("state", get_args(NodeState))
def test_every_state_has_a_sentence(record, state):
    assert len(why_node(record.model_copy(update={"state": state})).sentence) > 15


def test_every_code_of_the_resource_manager_is_in_the_catalogue_and_none_is_idle():
    folder = Path(orchestrator.scaling.__file__).parent
    words = set(re.findall(r'"([A-Z][A-Z0-9_]{3,})"', "".join(path.read_text() for path in folder.glob("*.py"))))
    words |= {f"PAUSED_{direction}" for direction in ("IN", "OUT", "BOTH")}
    assert words == {entry.code for entry in ENTRIES}
    assert all(entry.cause and entry.remedy and entry.kind == "reason" for entry in ENTRIES)
