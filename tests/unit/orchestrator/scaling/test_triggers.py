"""A decision says why this number: what was looked at, who won, what the limits made of it, by which policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import orchestrator.scaling
from orchestrator.scaling.triggers import policy_revision
from secbeat.catalogue.scaling import ENTRIES
from secbeat.settings import PoolSettings


def by_name(decision):
    return {one.name: one for one in decision.triggers}


def test_all_triggers_are_recorded_met_or_not(pool, seen):
    decision = pool().ask(seen(0.5))
    assert {name: one.met for name, one in by_name(decision).items()} == {
        "high_cpu": False,
        "low_cpu": False,
        "below_min": False,
        "above_max": False,
    }
    assert (by_name(decision)["high_cpu"].value, by_name(decision)["high_cpu"].limit) == (0.5, 0.8)
    assert (decision.winner, decision.wanted) == (None, None)


def test_growth_shows_its_formula_and_what_the_limits_left_of_it(pool, seen):
    fleet = pool(max_step_up=10, max=5)
    fleet.tick(seen(1.0, active=4))
    decision = fleet.ask(seen(1.0, active=4))
    high = by_name(decision)["high_cpu"]
    assert high.formula == "ceil(1 x 4 / 0.8) = 5, from 4 at most 10 at a time"
    assert (high.met, high.checks, high.needed, high.size) == (True, 2, 2, 5)
    fleet.history = fleet.history.after(decision)
    fleet = pool(history={"up_checks": 1}, max_step_up=10, max=5, scale_up_cpu_threshold=0.5)
    decision = fleet.ask(seen(1.0, active=4))
    assert (decision.winner, decision.wanted, decision.capacity, decision.desired) == ("high_cpu", 8, 4, 5)
    assert [clamp.code for clamp in decision.clamps] == ["AT_MAX"]


@pytest.mark.parametrize(
    ("policy", "fields", "winner", "wanted"),
    [
        ({"min": 3}, {}, "below_min", 3),
        ({"max": 1}, {}, "above_max", 1),
        ({}, {"cpu": 0.1}, "low_cpu", 1),
        ({}, {"failed": 1, "dead": ("00000000-0000-0000-0000-000000000001",)}, "dead_nodes", 3),
    ],
)
def test_the_winner_is_named_with_the_size_that_it_asks_for(pool, seen, policy, fields, winner, wanted):
    decision = pool(**policy).ask(seen(**{"cpu": 0.5, **fields}))
    assert (decision.winner, decision.wanted) == (winner, wanted)
    assert by_name(decision)[winner].met


def test_silent_nodes_are_capacity_and_do_not_serve(pool, seen):
    decision = pool().ask(seen(0.5, active=6, silent=1))
    assert (decision.capacity, decision.actual) == (6, 5)


def test_the_policys_revision_changes_with_its_values_and_not_with_its_mode():
    one = policy_revision(PoolSettings())
    assert one == policy_revision(PoolSettings()) == policy_revision(PoolSettings(mode="observe"))
    assert one != policy_revision(PoolSettings(scale_up_checks=3))
    assert re.fullmatch(r"[0-9a-f]{12}", one)


def test_every_code_of_the_resource_manager_is_in_the_catalogue_and_none_is_idle():
    folder = Path(orchestrator.scaling.__file__).parent
    words = set(re.findall(r'"([A-Z][A-Z0-9_]{3,})"', "".join(path.read_text() for path in folder.glob("*.py"))))
    words |= {f"PAUSED_{direction}" for direction in ("IN", "OUT", "BOTH")}
    assert words == {entry.code for entry in ENTRIES}
    assert all(entry.cause and entry.remedy and entry.kind == "reason" for entry in ENTRIES)
