from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secbeat import ids, subjects

NODE = "8c0e2b1c-2f57-4b0e-9d0a-5d6f7a8b9c0d"


def test_fresh_ids_pass_their_own_checks_and_differ():
    assert ids.check_node_id(ids.new_node_id()) != ids.check_node_id(ids.new_node_id())
    assert ids.check_op_id(ids.new_op_id()) != ids.check_op_id(ids.new_op_id())


@pytest.mark.parametrize(
    "value",
    ["", NODE.upper(), NODE.replace("-", ""), f"{NODE}\n", f" {NODE}", f"{NODE}.x", "*", ">", "../etc", f"{{{NODE}}}"],
)
def test_what_is_no_lower_case_uuid_is_refused(value):
    with pytest.raises(ValueError, match="UUID"):
        ids.check_node_id(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "01M897M22X6M738702J286XS6",
        "01M897M22X6M738702J286XS6SX",
        "01m897m22x6m738702j286xs6s",
        "81M897M22X6M738702J286XS6S",
        "01M897M22X6M738702J286XS6U",
        "01M897M22X6M738702J286XS6S\n",
    ],
)
def test_what_is_no_ulid_is_refused(value):
    with pytest.raises(ValueError, match="ULID"):
        ids.check_op_id(value)


@pytest.mark.parametrize("value", ["a", "default", "web-1", "a" * 26, "a-b-c"])
def test_pool_names_are_taken(value):
    assert ids.check_pool(value) == value


@pytest.mark.parametrize(
    "value", ["", "A", "1a", "-a", "a-", "a" * 27, "a.b", "a/b", "a b", "a*", ">", "ä", "default\n", "a_b"]
)
def test_what_is_no_pool_name_is_refused(value):
    with pytest.raises(ValueError, match="pool name"):
        ids.check_pool(value)


def test_a_refusal_quotes_no_more_than_a_short_piece():
    with pytest.raises(ValueError, match="pool name") as refusal:
        ids.check_pool("x" * 10_000)
    assert len(str(refusal.value)) < 200


def test_a_machine_name_is_deterministic_and_checked():
    assert ids.machine_name("web", NODE) == "web-8c0e2b1c"
    with pytest.raises(ValueError, match="pool name"):
        ids.machine_name("Web", NODE)
    with pytest.raises(ValueError, match="UUID"):
        ids.machine_name("web", "8c0e2b1c")


@given(st.text())
def test_whatever_passes_a_check_can_be_part_of_a_subject_and_of_a_path(value):
    for check in (ids.check_node_id, ids.check_op_id, ids.check_pool):
        try:
            passed = check(value)
        except ValueError:
            continue
        assert not set(passed) & set("/.*> \t\r\n\0")


def test_subjects_are_spelled_as_the_other_side_expects_them():
    assert subjects.heartbeat(NODE) == f"secbeat.hb.{NODE}"
    assert subjects.command(NODE, "terminate") == f"secbeat.cmd.{NODE}.terminate"
    assert subjects.commands(NODE) == f"secbeat.cmd.{NODE}.*"
    assert subjects.job_hint("OP") == "secbeat.jobs.OP"
    assert subjects.queued("OP") == "secbeat.queue.OP"
    assert subjects.event("node.joined") == "secbeat.ev.node.joined"
    assert subjects.ledger("default", "decision") == "secbeat.ledger.decision.default"


def test_what_is_published_matches_what_is_subscribed_to():
    from secbeat.testing.messaging import matches

    for pattern, subject in (
        (subjects.HEARTBEATS, subjects.heartbeat(NODE)),
        (subjects.commands(NODE), subjects.command(NODE, "ping")),
        (subjects.JOB_HINTS, subjects.job_hint("OP")),
        (subjects.QUEUE_SUBJECTS, subjects.queued("OP")),
        (subjects.EVENTS, subjects.event("node.joined")),
        (subjects.LEDGER_SUBJECTS, subjects.ledger("_", "audit")),
        (subjects.LEGACY_TELEMETRY, f"secbeat.telemetry.{NODE}"),
    ):
        assert matches(pattern, subject)
    assert not matches(subjects.EVENTS, subjects.LEGACY_WAF_EVENTS), "the original's events are another thing"
