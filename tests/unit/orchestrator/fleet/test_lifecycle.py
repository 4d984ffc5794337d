from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from pydantic import ValidationError

from orchestrator.fleet import IllegalTransition, advance
from orchestrator.fleet.lifecycle import TRANSITIONS
from secbeat.wire.nodes import NodeState

LATER = datetime(2026, 1, 2, tzinfo=UTC)
ORDER = ["requested", "provisioning", "booting", "joining", "active", "draining", "terminating", "gone"]


def test_the_whole_life_of_a_node(fleet):
    record = fleet.record(state="requested")
    for step, state in enumerate(ORDER[1:], 1):
        at = LATER + timedelta(minutes=step)
        record = advance(record, state, now=at)
        assert (record.state, record.state_since) == (state, at)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("gone", "active"), ("gone", "requested"), ("terminating", "active"), ("terminating", "draining"),
        ("active", "booting"), ("active", "requested"), ("draining", "joining"), ("failed", "joining"),
        ("quarantined", "active"), ("requested", "quarantined"), ("booting", "provisioning"),
    ],
)  # fmt: skip
def test_an_arrow_that_the_diagram_lacks_is_refused(fleet, before, after):
    record = fleet.record(state=before)
    with pytest.raises(IllegalTransition, match=f"{before} -> {after}"):
        advance(record, after, now=LATER)


@pytest.mark.parametrize(
    ("before", "after"),
    [("draining", "active"), ("unreachable", "active"), ("failed", "active"), ("active", "unreachable"),
     ("unreachable", "failed"), ("failed", "gone"), ("requested", "joining"), ("booting", "failed")],
)  # fmt: skip
def test_ways_back_and_short_cuts_of_the_diagram_are_open(fleet, before, after):
    assert advance(fleet.record(state=before), after, now=LATER).state == after


def test_the_same_state_changes_fields_and_keeps_its_beginning(fleet):
    record = fleet.record()
    changed = advance(record, "active", now=LATER, protected=True)
    assert (changed.protected, changed.state_since) == (True, record.state_since)
    assert not record.protected


@pytest.mark.parametrize("name", ["node_id", "state", "state_since", "colour"])
def test_a_change_cannot_name_what_identifies_a_node_or_does_not_exist(fleet, name):
    with pytest.raises(TypeError, match=name):
        advance(fleet.record(), "draining", now=LATER, **{name: "x"})


def test_a_wrong_value_is_refused(fleet):
    with pytest.raises(ValidationError):
        advance(fleet.record(), "draining", now=LATER, destroy_op_id="not-an-op")


def test_every_state_has_its_row_and_only_gone_is_final():
    states = set(get_args(NodeState))
    assert TRANSITIONS.keys() == states
    assert set().union(*TRANSITIONS.values()) <= states
    assert [state for state, after in TRANSITIONS.items() if not after] == ["gone"]
    assert all("gone" in after for state, after in TRANSITIONS.items() if state != "gone")
