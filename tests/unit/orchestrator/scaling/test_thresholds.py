"""The guide's numbers, exactly."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.scaling import History, acts, victims
from secbeat.settings import PoolSettings


def test_the_defaults_are_the_guides():
    policy = PoolSettings()
    assert (policy.scale_up_cpu_threshold, policy.scale_up_checks) == (0.80, 2)
    assert (policy.scale_down_cpu_threshold, policy.scale_down_checks) == (0.30, 5)
    assert (policy.scaling_check_interval_seconds, policy.min) == (60, 1)


@pytest.mark.parametrize(
    ("cpu", "code"),
    [
        (0.80, "BETWEEN_THRESHOLDS"),
        (0.8001, "WAITING_FOR_CHECKS"),
        (1.0, "WAITING_FOR_CHECKS"),
        (0.30, "BETWEEN_THRESHOLDS"),
        (0.2999, "WAITING_FOR_CHECKS"),
        (0.0, "WAITING_FOR_CHECKS"),
        (0.5, "BETWEEN_THRESHOLDS"),
    ],
)
def test_a_threshold_is_crossed_strictly(pool, seen, cpu, code):
    assert pool().ask(seen(cpu)).code == code


def test_two_checks_above_and_one_node_is_added(pool, seen):
    fleet = pool()
    first = fleet.tick(seen(0.85))
    assert (first.direction, first.size, first.code, first.up_checks) == ("hold", 0, "WAITING_FOR_CHECKS", 1)
    assert "cpu 85 % of 2 nodes is above 80 %, check 1 of 2" in first.sentence
    second = fleet.tick(seen(0.91))
    assert (second.direction, second.size, second.code) == ("up", 1, "HIGH_FLEET_CPU_LOAD")
    assert (second.capacity, second.desired, second.up_checks) == (2, 3, 2)
    assert second.sentence == "cpu 91 % of 2 nodes is above 80 % for 2 checks: adding 1 node (2 to 3 of 10)"
    assert acts(second)
    assert fleet.history.up_checks == 0
    assert fleet.history.last_up_at == second.at


def test_one_check_in_between_starts_the_count_anew(pool, seen):
    fleet = pool()
    for cpu in (0.85, 0.80, 0.85, 0.5, 0.99):
        assert fleet.tick(seen(cpu)).direction == "hold"
    assert fleet.tick(seen(0.99)).direction == "up"


def test_five_checks_below_and_the_node_with_the_fewest_connections_leaves(pool, seen, uid):
    fleet = pool()
    for check in range(1, 5):
        decision = fleet.tick(seen(0.29))
        assert (decision.code, decision.down_checks) == ("WAITING_FOR_CHECKS", check)
    decision = fleet.tick(seen(0.29))
    assert (decision.direction, decision.size, decision.code) == ("down", 1, "LOW_FLEET_CPU_LOAD")
    assert (decision.capacity, decision.desired, decision.victim) == (2, 1, uid(1))
    assert victims(decision) == (uid(1),)
    assert decision.sentence == (
        "cpu 29 % of 2 nodes is below 30 % for 5 checks: removing the node with the fewest connections (10)"
    )
    assert fleet.history.down_checks == 0


@pytest.mark.parametrize("minimum", [1, 2, 3])
def test_a_pool_at_min_does_not_shrink_and_says_so_at_once(pool, seen, minimum):
    fleet = pool(min=minimum)
    for _ in range(10):
        decision = fleet.tick(seen(0.01, active=minimum))
        assert (decision.direction, decision.code) == ("hold", "AT_MIN")
    assert f"min is {minimum}" in decision.sentence


def test_a_pool_at_max_does_not_grow_and_says_so_at_once(pool, seen):
    fleet = pool(max=2)
    for _ in range(5):
        decision = fleet.tick(seen(0.99))
        assert (decision.direction, decision.code) == ("hold", "AT_MAX")
        assert [clamp.code for clamp in decision.clamps] == ["AT_MAX"]
    assert "max is 2" in decision.sentence


def test_the_fraction_is_compared_and_never_the_percent_of_the_original(pool, seen):
    """Defect S1: 7 percent of CPU bought thirty machines an hour."""
    fleet = pool()
    for _ in range(60):
        decision = fleet.tick(seen(0.07, active=1))
        assert decision.direction == "hold"


@pytest.mark.parametrize(
    ("active", "cpu", "step", "size"),
    [(1, 1.0, 1, 1), (10, 0.95, 1, 1), (10, 0.95, 5, 2), (10, 1.0, 5, 3), (10, 0.81, 5, 1), (40, 1.0, 50, 10)],
)
def test_the_step_is_what_brings_the_mean_to_the_threshold_within_max_step_up(pool, seen, active, cpu, step, size):
    fleet = pool(max=100, max_step_up=step)
    assert fleet.tick(seen(cpu, active=active), times=2).size == size


def test_a_step_over_max_is_cut_and_the_cut_is_recorded(pool, seen):
    decision = pool(max=11, max_step_up=5).tick(seen(1.0, active=10), times=2)
    assert (decision.size, decision.desired) == (1, 11)
    assert [clamp.code for clamp in decision.clamps] == ["AT_MAX"]
    assert "1 node instead of 3" in decision.clamps[0].sentence


# ---------------------------------------------------------------------- what is on its way


def test_a_booting_node_counts_and_no_second_one_is_bought(pool, seen):
    """Defect S3: three webhooks while one machine booted."""
    fleet = pool()
    fleet.tick(seen(0.95, active=1), times=2)
    for _ in range(15):
        decision = fleet.tick(seen(0.99, active=1, pending=1))
        assert (decision.direction, decision.code) == ("hold", "BOOTING_CAPACITY")
    assert fleet.tick(seen(0.99, active=2)).code == "WAITING_FOR_CHECKS"


def test_a_node_that_warms_up_is_expected_to_take_its_share(pool, seen):
    fleet = pool()
    decision = fleet.tick(seen(0.95, active=2, warming=1), times=3)
    assert (decision.direction, decision.code) == ("hold", "WARMING_UP")
    assert "should bring it to 47.5 %" in decision.sentence


def test_a_warming_node_that_will_not_suffice_does_not_hold_a_large_pool(pool, seen):
    decision = pool(max=100).tick(seen(0.95, active=40, warming=1), times=2)
    assert (decision.direction, decision.code) == ("up", "HIGH_FLEET_CPU_LOAD")


def test_draining_never_holds_up_growth(pool, seen):
    assert pool().tick(seen(0.9, draining=3), times=2).direction == "up"


def test_draining_holds_the_next_scale_down(pool, seen):
    fleet = pool()
    assert fleet.tick(seen(0.1, active=3, draining=1), times=9).code == "DRAINING_FIRST"
    assert fleet.tick(seen(0.1, active=3)).direction == "down"


# ---------------------------------------------------------------------- cooldowns


def test_no_scale_down_within_the_cooldown_after_any_scaling(pool, seen):
    fleet = pool(scale_down_cooldown_seconds=600)
    fleet.tick(seen(0.9), times=2)
    acted = fleet.now - timedelta(seconds=60)
    for _ in range(9):
        decision = fleet.tick(seen(0.1, active=3))
        assert decision.direction == "hold"
    assert decision.code == "COOLDOWN_DOWN"
    assert "540 s ago, the cooldown is 600 s" in decision.sentence
    decision = fleet.tick(seen(0.1, active=3))
    assert (decision.direction, decision.at - acted) == ("down", timedelta(seconds=600))
    assert fleet.tick(seen(0.1), times=5).code != "LOW_FLEET_CPU_LOAD"


def test_no_scale_up_within_its_own_cooldown(pool, seen):
    fleet = pool(scale_up_cooldown_seconds=200)
    fleet.tick(seen(0.9), times=2)
    assert fleet.tick(seen(0.9, active=3), times=3).code == "COOLDOWN_UP"
    assert fleet.tick(seen(0.9, active=3)).direction == "up"


def test_a_clock_that_jumps_back_ends_no_cooldown_early(pool, seen):
    fleet = pool()
    fleet.history = History(last_up_at=fleet.now + timedelta(hours=1), down_checks=9)
    assert fleet.ask(seen(0.1)).code == "COOLDOWN_DOWN"


# ---------------------------------------------------------------------- who leaves


def test_a_protected_node_is_passed_over(pool, seen, uid):
    blocked = {1: "PROTECTED", 2: "WARMING_UP", 3: "SILENT", 4: "STALE_METRICS"}
    decision = pool().tick(seen(0.1, active=6, blocked=blocked), times=5)
    assert (decision.victim, victims(decision)) == (uid(5), (uid(5),))


def test_a_pool_of_protected_nodes_does_not_shrink(pool, seen):
    decision = pool().tick(seen(0.1, blocked={1: "PROTECTED", 2: "PROTECTED"}), times=6)
    assert (decision.direction, decision.code) == ("hold", "ALL_PROTECTED")


def test_a_pool_where_nobody_is_fit_to_leave_does_not_shrink(pool, seen):
    decision = pool().tick(
        seen(0.1, active=4, blocked={1: "PROTECTED", 2: "WARMING_UP", 3: "PROTECTED", 4: "SILENT"}), times=6
    )
    assert (decision.direction, decision.code) == ("hold", "NO_VICTIM")


def test_a_pool_with_silent_nodes_does_not_shrink(pool, seen):
    decision = pool().tick(seen(0.1, active=6, silent=1), times=6)
    assert (decision.direction, decision.code) == ("hold", "SILENT_NODES")
    assert "1 node of 6 silent or dead" in decision.sentence


def test_a_scale_down_that_would_have_to_be_undone_at_once_is_not_done(pool, seen):
    fleet = pool(scale_up_cpu_threshold=0.5, scale_down_cpu_threshold=0.4)
    decision = fleet.tick(seen(0.3), times=6)
    assert (decision.direction, decision.code) == ("hold", "WOULD_FLAP")
    assert "would be 60 %, above 50 %" in decision.sentence
    assert fleet.tick(seen(0.3, active=3)).direction == "down"


# ---------------------------------------------------------------------- data that is missing


def test_no_fresh_metrics_change_nothing(pool, seen):
    fleet = pool()
    decision = fleet.tick(seen(None, active=3), times=20)
    assert (decision.direction, decision.code) == ("hold", "NO_FRESH_METRICS")


@pytest.mark.parametrize(("active", "fresh", "holds"), [(4, 1, True), (4, 2, False), (5, 2, True), (5, 3, False)])
def test_too_few_fresh_metrics_change_nothing(pool, seen, active, fresh, holds):
    decision = pool().tick(seen(0.1, active=active, fresh=fresh), times=5)
    assert (decision.code == "TOO_FEW_FRESH_METRICS") is holds
    assert (decision.direction == "hold") is holds
    if holds:
        assert f"{fresh} of {active} nodes have fresh metrics, 50 % are needed" in decision.sentence


def test_nodes_that_warm_up_are_not_missing_data(pool, seen):
    assert pool().tick(seen(0.5, active=5, warming=4)).code == "BETWEEN_THRESHOLDS"


def test_a_pool_of_nodes_that_all_warm_up_waits(pool, seen):
    assert pool().ask(seen(0.5, active=2, warming=2)).code == "WARMING_UP"


def test_a_check_without_data_is_no_check(pool, seen):
    fleet = pool()
    fleet.tick(seen(0.1, active=3), times=4)
    fleet.tick(seen(None, active=3))
    for _ in range(4):
        assert fleet.tick(seen(0.1, active=3)).direction == "hold"
    assert fleet.tick(seen(0.1, active=3)).direction == "down"


def test_an_empty_pool_with_min_zero_rests(pool, seen):
    assert pool(min=0).ask(seen(None, active=0)).code == "AT_MIN"
    assert pool(min=0).ask(seen(None, active=0, pending=1)).code == "BOOTING_CAPACITY"
