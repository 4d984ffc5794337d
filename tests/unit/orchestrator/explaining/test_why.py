"""The words of ``why``, from decisions and records alone; the whole way through API and command: test_situations."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest

from orchestrator.explaining import Situation, why_node, why_pool, why_pool_then
from secbeat.settings import PoolSettings
from secbeat.wire.nodes import NodeRecord, NodeState
from secbeat.wire.operations import OperationError, OperationRecord
from secbeat.wire.pools import Breaker, PoolRecord

OP = "01K2XG3Q4R5S6T7V8W9X0Y1Z2A"


@pytest.fixture
def record(pool, uid):
    now = pool().now
    return NodeRecord(node_id=uid(1), pool="web", state="active", state_since=now, created_at=now)


@pytest.fixture
def operation(pool, uid):
    def make(**fields):
        now = pool().now
        given = {
            "op_id": OP, "cluster_id": uid(9), "action": "create", "pool": "web", "node_id": uid(1),
            "reason": "HIGH_FLEET_CPU_LOAD", "created_at": now, "deadline": now, "updated_at": now,
        }  # fmt: skip
        return OperationRecord(**{**given, **fields})

    return make


def situation(policy=None, **fields):
    return Situation(policy=policy or PoolSettings(), record=fields.pop("record", PoolRecord(name="web")), **fields)


def test_a_pool_that_was_never_evaluated_says_so():
    assert "not evaluated yet" in why_pool("web", None, situation()).sentence


def test_a_pools_why_has_the_sentence_the_other_limits_and_how_to_change_it(pool, seen):
    fleet = pool(max=2)
    fleet.tick(seen(0.9, pending=1, active=1))
    decision = fleet.ask(seen(0.9, pending=1, active=1))
    why = why_pool("web", decision, situation(fleet.policy, file=Path("/etc/sec beat.toml"), pid=42))
    assert why.sentence.startswith("holding at 2: cpu 90 % of 1 node, but the pool has 2 nodes and max is 2")
    assert "also: cpu 90 % of 1 node, but 1 node on the way" in why.sentence
    assert why.code == "AT_MAX"
    assert why.fix == (
        "Set max = 3 under [pools.web] of /etc/sec beat.toml, then: "
        "secbeat config check '/etc/sec beat.toml' && kill -HUP 42"
    )
    assert why.decision == decision


def test_a_pools_why_counts_equal_checks(pool, seen):
    decision = pool().ask(seen(0.5))
    decision = decision.model_copy(update={"equal_count": 12, "equal_since": decision.at - timedelta(minutes=11)})
    why = why_pool("web", decision, situation())
    assert why.sentence.endswith("(the same since 2026-01-01T11:49:00.000Z, 12 checks)")
    assert why.fix.startswith("secbeat scale web 3 --for 1h ")


@pytest.mark.parametrize(
    ("mode", "words", "code"),
    [
        ("active", "growing at 1: ", "BELOW_MIN_FLEET_SIZE"),
        ("observe", "observing (would be growing) at 1: ", "OBSERVE_MODE"),
    ],
)
def test_a_pools_why_says_whether_it_acts(pool, seen, mode, words, code):
    fleet = pool(min=2, mode=mode)
    why = why_pool("web", fleet.ask(seen(0.5, active=1)), situation(fleet.policy))
    assert (why.sentence.startswith(words), why.code) == (True, code)


def test_a_request_that_is_not_accepted_comes_before_the_wait_for_it(pool, seen, operation):
    refused = OperationError(code="WEBHOOK_BUSY", message="429: POOL_MACHINES_LIMIT: the limit is 2")
    why = why_pool(
        "web", pool().ask(seen(0.9, pending=1)), situation(operations=[operation(error=refused), operation()])
    )
    assert why.sentence.startswith(
        "holding at 3: WEBHOOK_BUSY: 429: POOL_MACHINES_LIMIT: the limit is 2; operation 01K"
    )
    assert (why.code, why.trouble.op_id) == ("WEBHOOK_BUSY", OP)
    assert why.fix.startswith(f"secbeat jobs log {OP} ")


def test_a_failed_boot_is_named_first_where_it_holds_growth_and_last_where_it_does_not(pool, seen, operation):
    error = OperationError(code="PLAYBOOK_FAILED", message="disk full", task="Copy the image")
    failed = operation(state="failed", error=error)
    breaker = Breaker(failures=1, last_error="disk full", last_code="PLAYBOOK_FAILED", last_op_id=OP)
    known = situation(operations=[failed], record=PoolRecord(name="web", breaker=breaker))
    waits = breaker.model_copy(update={"retry_at": pool().now + timedelta(seconds=5)})
    held = why_pool("web", pool(history={"up_checks": 1, "breaker": waits}).ask(seen(0.9)), known)
    assert held.sentence.startswith("holding at 2: operation 01K")
    assert "the last boot failed (PLAYBOOK_FAILED: disk full); the next try is at 2026-" in held.sentence
    assert held.code == "PLAYBOOK_FAILED"
    idle = why_pool("web", pool().ask(seen(0.5)), known)
    assert idle.sentence.startswith("holding at 2: cpu 50 % ")
    assert "; the last boot failed: PLAYBOOK_FAILED: disk full" in idle.sentence
    assert idle.code == "BETWEEN_THRESHOLDS"
    mended = situation(operations=[failed])
    assert "PLAYBOOK_FAILED" not in why_pool("web", pool().ask(seen(0.5)), mended).sentence


def test_a_past_decision_has_a_sentence_and_nothing_to_mend(pool, seen):
    why = why_pool_then("web", pool(mode="observe", min=3).ask(seen(0.5)))
    assert why.sentence.startswith("observing (would be growing) at 2: ")
    assert (why.code, why.fix) == ("OBSERVE_MODE", None)


def test_an_active_node_is_there_because_the_pool_holds(record, pool, seen):
    why = why_node(record, decision=pool(min=2).ask(seen(0.1)), policy=PoolSettings(min=2))
    assert (why.state, why.blocked_by) == ("active", ("AT_MIN",))
    assert "the pool holds at 2: cpu 10 % of 2 nodes, but the pool has 2 nodes and min is 2" in why.sentence
    assert why.fix == f"secbeat drain {record.node_id}"


def test_the_chosen_node_and_the_others(record, pool, seen, uid):
    decision = pool().tick(seen(0.1), times=5)
    chosen = why_node(record, decision=decision)
    assert "it is chosen to leave" in chosen.sentence
    assert (chosen.blocked_by, chosen.leaves) == ((), "now")
    other = record.model_copy(update={"node_id": uid(2), "protected": True})
    why = why_node(other, load="silent", decision=decision)
    assert f"node {uid(1)} leaves first" in why.sentence
    assert why.blocked_by == ("SILENT", "PROTECTED", "NOT_NEXT")
    assert (why.leaves, why.fix) == ("", f"secbeat protect {uid(2)} --off")


def test_the_next_to_leave_shows_when_and_the_others_who_comes_before(record, pool, seen, uid):
    fleet = pool()
    decision = fleet.tick(seen(0.1), times=2)
    why = why_node(record, decision=decision, policy=fleet.policy)
    assert (why.blocked_by, why.leaves_at) == ((), decision.at + timedelta(minutes=3))
    assert why.leaves == "when cpu stays below 30 % until 2026-01-01T12:04:00Z (3 more checks)"
    later = why_node(record.model_copy(update={"node_id": uid(2)}), decision=decision, policy=fleet.policy)
    assert (later.blocked_by, later.leaves) == (("NOT_NEXT",), "after those with fewer connections")


def test_a_cooldown_says_until_when(record, pool, seen):
    now = pool().now
    fleet = pool(history={"down_checks": 4, "last_up_at": now - timedelta(seconds=100)})
    why = why_node(record, decision=fleet.ask(seen(0.1)), policy=fleet.policy)
    assert why.blocked_by == ("COOLDOWN_DOWN",)
    assert (why.leaves, why.leaves_at) == ("not before 2026-01-01T12:03:20Z", now + timedelta(seconds=200))


def test_a_pool_under_load_needs_its_nodes(record, pool, seen):
    fleet = pool()
    why = why_node(record, decision=fleet.ask(seen(0.9)), policy=fleet.policy)
    assert (why.blocked_by, why.leaves) == (("HIGH_FLEET_CPU_LOAD",), "when cpu falls below 30 %")


def test_in_observe_the_node_would_be_chosen(record, pool, seen):
    why = why_node(record, decision=pool(mode="observe").tick(seen(0.1), times=5))
    assert "it would be chosen to leave" in why.sentence
    assert why.blocked_by == ("OBSERVE_MODE",)


def test_a_node_in_an_operation_says_where_that_stands_and_by_when_it_leaves(record, pool, operation):
    now = pool().now
    draining = operation(
        action="destroy", state="draining", stage="waiting", drain_deadline=now + timedelta(seconds=60),
        error=OperationError(code="TERMINATE_FAILED", message="the port does not answer"),
    )  # fmt: skip
    why = why_node(record.model_copy(update={"state": "draining"}), operation=draining)
    assert why.sentence.startswith(
        "TERMINATE_FAILED: the port does not answer; draining since 2026-01-01T12:00:00.000Z"
    )
    assert "(destroy) is draining: waiting" in why.sentence
    assert why.blocked_by == ("TERMINATE_FAILED",)
    assert (why.leaves, why.leaves_at) == (
        "it is leaving, at the latest at 2026-01-01T12:01:00Z",
        now + timedelta(seconds=60),
    )


def test_a_node_that_could_not_be_removed_says_why(record, operation):
    stuck = operation(
        action="destroy", state="needs_operator", error=OperationError(code="CANNOT_DESTROY", message="no URL")
    )
    why = why_node(record.model_copy(update={"state": "terminating"}), operation=stuck)
    assert (why.blocked_by, why.leaves, why.fix) == (("CANNOT_DESTROY",), "", f"secbeat jobs log {OP}")


@pytest.mark.parametrize("state", get_args(NodeState))
def test_every_state_has_a_sentence(record, state):
    assert len(why_node(record.model_copy(update={"state": state})).sentence) > 15
