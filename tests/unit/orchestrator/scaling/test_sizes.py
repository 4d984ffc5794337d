"""min, max, operators, outages, the breaker: what stands above the thresholds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.scaling import History, acts, allowed_silence, victims
from secbeat.wire.pools import Breaker, Override, Pause, PoolRecord


def codes(decision):
    return [clamp.code for clamp in decision.clamps]


# ---------------------------------------------------------------------- min and max


@pytest.mark.parametrize(("active", "pending", "size"), [(0, 0, 3), (1, 0, 2), (1, 1, 1), (0, 2, 1)])
def test_a_pool_below_min_is_restored_at_once_whatever_the_cpu_says(pool, seen, active, pending, size):
    now = pool().now
    fleet = pool({"last_up_at": now, "last_down_at": now}, min=3, scale_up_cooldown_seconds=900)
    decision = fleet.ask(seen(0.01, active=active, pending=pending))
    assert (decision.direction, decision.size, decision.code) == ("up", size, "BELOW_MIN_FLEET_SIZE")
    assert decision.desired == 3
    assert f"and min is 3: adding {size}" in decision.sentence


def test_a_pool_whose_missing_nodes_boot_is_not_below_min(pool, seen):
    assert pool(min=3).ask(seen(0.5, active=1, pending=2)).direction == "hold"


def test_draining_nodes_are_no_capacity(pool, seen):
    assert pool(min=3).ask(seen(0.5, active=2, draining=5)).size == 1


def test_a_pool_above_max_shrinks_to_it_by_those_with_the_fewest_connections(pool, seen, uid):
    decision = pool(max=3).ask(seen(0.99, active=5, blocked={2: "PROTECTED"}))
    assert (decision.direction, decision.size, decision.code) == ("down", 2, "ABOVE_MAX_FLEET_SIZE")
    assert victims(decision) == (uid(1), uid(3))
    assert decision.victim == uid(1)


def test_a_pool_above_max_whose_nodes_are_protected_stays(pool, seen):
    decision = pool(max=1).ask(seen(0.5, blocked={1: "PROTECTED", 2: "PROTECTED"}))
    assert (decision.direction, decision.code) == ("hold", "ALL_PROTECTED")


def test_a_pool_above_max_is_not_shrunk_by_nodes_of_which_nothing_is_known(pool, seen):
    decision = pool(max=1).ask(seen(None, active=3, blocked=dict.fromkeys((1, 2, 3), "STALE_METRICS")))
    assert (decision.direction, decision.code) == ("hold", "NO_VICTIM")


# ---------------------------------------------------------------------- pause


def pause(fleet, direction, **fields):
    return Pause(direction=direction, since=fleet.now, **fields)


@pytest.mark.parametrize("direction", ["out", "both"])
def test_not_even_a_pool_below_min_grows_while_growth_is_paused(pool, seen, direction):
    fleet = pool(min=3)
    fleet.history = History(pause=pause(fleet, direction, by="alice", reason="migration"))
    decision = fleet.ask(seen(0.5, active=1))
    assert (decision.direction, decision.code) == ("hold", f"PAUSED_{direction.upper()}")
    assert "paused by alice until 'resume': migration" in decision.sentence


def test_a_pause_of_growth_does_not_hold_shrinking(pool, seen):
    fleet = pool()
    fleet.history = History(pause=pause(fleet, "out"))
    assert fleet.tick(seen(0.9), times=3).code == "PAUSED_OUT"
    assert fleet.tick(seen(0.1), times=5).direction == "down"


def test_a_pause_of_shrinking_does_not_hold_growth(pool, seen):
    fleet = pool()
    fleet.history = History(pause=pause(fleet, "in"))
    assert fleet.tick(seen(0.1), times=6).code == "PAUSED_IN"
    assert fleet.tick(seen(0.9), times=2).direction == "up"


def test_a_paused_pool_says_what_it_would_do(pool, seen):
    fleet = pool(min=3)
    fleet.history = History(pause=pause(fleet, "both", until=fleet.now + timedelta(hours=1)))
    decision = fleet.ask(seen(0.5, active=1))
    assert "until 2026-01-01T13:00:00Z; without the pause: up 2, the pool has 1 node and min is 3" in decision.sentence


def test_a_pause_ends_by_itself(pool, seen):
    fleet = pool(min=3)
    fleet.history = History(pause=pause(fleet, "both", until=fleet.now + timedelta(seconds=60)))
    assert fleet.tick(seen(0.5, active=1)).direction == "hold"
    assert fleet.tick(seen(0.5, active=1)).direction == "up"


# ---------------------------------------------------------------------- an operator's size


def test_the_loop_holds_an_operators_size_until_it_expires(pool, seen):
    fleet = pool()
    until = fleet.now + timedelta(seconds=600)
    fleet.history = History(override=Override(size=4, since=fleet.now, until=until, by="alice"))
    up = fleet.tick(seen(0.05))
    assert (up.direction, up.size, up.code) == ("up", 2, "OVERRIDE")
    assert "the size set by alice is 4" in up.sentence
    for cpu in (0.01, 0.99, None, 0.01, 0.99, 0.99, 0.01, 0.01, 0.01):
        held = fleet.tick(seen(cpu, active=4))
        assert (held.direction, held.code) == ("hold", "OVERRIDE")
    assert fleet.now == until
    assert fleet.tick(seen(0.99, active=4)).code != "OVERRIDE"


def test_an_operators_size_is_reached_downwards_too_but_not_by_protected_nodes(pool, seen, uid):
    fleet = pool()
    fleet.history = History(override=Override(size=2, since=fleet.now))
    decision = fleet.ask(seen(0.99, active=5, blocked={1: "PROTECTED", 2: "WARMING_UP", 3: "SILENT"}, silent=1))
    assert (decision.direction, decision.size, decision.code) == ("down", 3, "OVERRIDE")
    assert victims(decision) == (uid(2), uid(4), uid(5))


@pytest.mark.parametrize(("asked", "size", "clamp"), [(50, 8, "AT_MAX"), (0, 1, "AT_MIN")])
def test_an_operators_size_stays_within_min_and_max_and_says_so(pool, seen, asked, size, clamp):
    fleet = pool()
    fleet.history = History(override=Override(size=asked, since=fleet.now))
    decision = fleet.ask(seen(0.5))
    assert (decision.size, codes(decision)) == (size, [clamp])
    assert f"{asked} was asked for" in decision.clamps[0].sentence
    assert codes(fleet.ask(seen(0.5, active=decision.desired))) == [clamp]


# ---------------------------------------------------------------------- retired and vanished


def test_a_retired_pool_goes_to_zero_whatever_stands_in_the_way(pool, seen, uid):
    fleet = pool(min=2)
    fleet.history = History(
        retired=True, vanished=True, pause=pause(fleet, "both"), frozen_since=fleet.now,
        breaker=Breaker(failures=3, open_since=fleet.now),
    )  # fmt: skip
    decision = fleet.ask(seen(0.9, active=4, silent=4, blocked={1: "PROTECTED", 2: "SILENT", 3: "WARMING_UP"}))
    assert (decision.direction, decision.size, decision.code, decision.desired) == ("down", 4, "RETIRED", 0)
    assert victims(decision) == tuple(map(uid, (1, 2, 3, 4)))


def test_a_retired_pool_stays_at_zero(pool, seen):
    fleet = pool({"retired": True}, min=2)
    empty = fleet.ask(seen(None, active=0))
    assert (empty.direction, empty.code, empty.sentence) == ("hold", "RETIRED", "the pool is retired; it is empty")
    assert (
        "2 nodes still on the way, 1 node draining" in fleet.ask(seen(None, active=0, pending=2, draining=1)).sentence
    )


@pytest.mark.parametrize("active", [0, 1, 5, 20])
def test_a_pool_that_vanished_from_the_file_is_paused_and_never_emptied(pool, seen, active):
    fleet = pool({"vanished": True, "down_checks": 9, "up_checks": 9}, min=3, max=4)
    for cpu in (0.01, 0.99):
        decision = fleet.ask(seen(cpu if active else None, active=active))
        assert (decision.direction, decision.code) == ("hold", "POOL_VANISHED")


# ---------------------------------------------------------------------- dead nodes and outages


@pytest.mark.parametrize(("known", "allowed"), [(0, 1), (1, 1), (5, 1), (6, 2), (10, 2), (11, 3), (100, 20), (101, 21)])
def test_a_fifth_rounded_up_but_at_least_one_may_be_silent(known, allowed):
    assert allowed_silence(known) == allowed


def dead(seen, uid, active, failed, **fields):
    return seen(0.5, active=active, failed=failed, dead=tuple(uid(900 + n) for n in range(min(failed, 16))), **fields)


def test_a_dead_node_is_replaced_even_below_min(pool, seen, uid):
    decision = pool(min=3).ask(dead(seen, uid, 2, 1))
    assert (decision.direction, decision.size, decision.code) == ("replace", 1, "UNEXPECTED_NODE_FAILURE")
    assert (decision.victim, victims(decision), decision.desired) == (uid(900), (uid(900),), 3)


def test_dead_nodes_are_replaced_one_per_interval(pool, seen, uid):
    fleet = pool(min=10)
    assert fleet.tick(dead(seen, uid, 8, 2)).victim == uid(900)
    fleet.now -= timedelta(seconds=30)
    early = fleet.ask(dead(seen, uid, 8, 2, pending=1, replaced=1).model_copy(update={"dead": (uid(901),)}))
    assert (early.direction, early.code) == ("hold", "REPLACEMENT_PACED")
    fleet.now += timedelta(seconds=30)
    late = fleet.ask(dead(seen, uid, 8, 2, pending=1, replaced=1).model_copy(update={"dead": (uid(901),)}))
    assert (late.direction, late.victim) == ("replace", uid(901))


def test_a_dead_node_whose_replacement_is_under_way_is_not_replaced_again(pool, seen, uid):
    fleet = pool({"replaced": frozenset({uid(900)})}, min=3)
    assert fleet.ask(dead(seen, uid, 2, 1, pending=1)).direction == "hold"


def test_what_is_missing_beyond_the_dead_is_restored_at_once(pool, seen, uid):
    decision = pool(min=10).ask(dead(seen, uid, 6, 1))
    assert (decision.direction, decision.size, decision.code) == ("up", 3, "BELOW_MIN_FLEET_SIZE")


@pytest.mark.parametrize(
    ("silent", "failed", "outage"),
    [(1, 0, False), (2, 0, False), (3, 0, True), (1, 1, False), (2, 1, True), (0, 3, True)],
)
def test_more_silence_than_a_fifth_freezes_the_pool(pool, seen, uid, silent, failed, outage):
    decision = pool(min=10).ask(dead(seen, uid, 10 - failed, failed, silent=silent))
    assert (decision.code == "MASS_SILENCE") is outage
    if outage:
        assert decision.direction == "hold"
        assert f"{silent} silent and {failed} dead of 10 nodes: more than 2 is an outage" in decision.sentence


@pytest.mark.parametrize("cpu", [0.01, 0.99, None])
def test_an_outage_changes_nothing_in_the_fleet(pool, seen, cpu):
    fleet = pool({"down_checks": 9, "up_checks": 9, "override": Override(size=9, since=pool().now)}, min=8, max=9)
    for _ in range(10):
        assert fleet.tick(seen(cpu, active=7, silent=7, fresh=0)).code == "MASS_SILENCE"


def test_a_freeze_thaws_when_heartbeats_return(pool, seen):
    fleet = pool({"frozen_since": pool().now}, min=3)
    assert fleet.ask(seen(0.5, active=3)).code == "BETWEEN_THRESHOLDS"


def test_resume_lets_the_pool_work_during_the_silence_and_only_for_that_one(pool, seen, uid):
    fleet = pool({"thawed": True}, min=4)
    gone = dead(seen, uid, 1, 3, silent=0)
    assert fleet.ask(gone).direction == "replace"
    assert fleet.tick(seen(0.5, active=4, silent=3)).code != "MASS_SILENCE"
    fleet.tick(seen(0.5, active=4))
    assert fleet.ask(seen(0.5, active=4, silent=3)).code == "MASS_SILENCE"


@pytest.mark.parametrize(
    ("silent", "failed", "replaced", "holds"),
    [(1, 0, 0, True), (0, 3, 2, True), (1, 3, 3, True), (0, 3, 3, False), (0, 0, 0, False)],
)
def test_resume_holds_until_the_last_of_the_dead_is_replaced(pool, seen, uid, silent, failed, replaced, holds):
    fleet = pool({"thawed": True}, min=4)
    fleet.tick(dead(seen, uid, 4 - failed, failed, silent=silent, replaced=replaced))
    assert fleet.history.thawed is holds


def test_silent_nodes_count_toward_min_until_their_verdict(pool, seen):
    assert pool(min=5).ask(seen(0.5, active=5, silent=1)).code == "BETWEEN_THRESHOLDS"


@pytest.mark.parametrize(
    ("history", "policy", "why"),
    [
        ({}, {"max": 4}, "the pool has its max of 4"),
        ({"override": True}, {}, "the size set by alice is 4"),
        ({"down_checks": 4}, {}, "cpu 20 % is below 30 %"),
    ],
)
def test_a_dead_node_that_is_not_needed_is_removed_without_a_replacement(pool, seen, uid, history, policy, why):
    fleet = pool(**policy)
    if "override" in history:
        history = {"override": Override(size=4, since=fleet.now, by="alice")}
    fleet.history = History(**history)
    decision = fleet.ask(dead(seen, uid, 4, 1).model_copy(update={"cpu": 0.2}))
    assert (decision.direction, decision.code, decision.victim) == ("down", "UNEXPECTED_NODE_FAILURE", uid(900))
    assert (decision.size, decision.capacity, decision.desired) == (1, 4, 4)
    assert victims(decision) == (uid(900),)
    assert why in decision.sentence


def test_a_pause_holds_what_it_names_of_a_dead_node(pool, seen, uid):
    fleet = pool(max=2)
    fleet.history = History(pause=pause(fleet, "in"))
    assert fleet.ask(dead(seen, uid, 2, 1)).code == "PAUSED_IN"
    fleet = pool()
    fleet.history = History(pause=pause(fleet, "out"))
    assert fleet.ask(dead(seen, uid, 2, 1)).code == "PAUSED_OUT"


# ---------------------------------------------------------------------- the breaker, open operations


def broken(fleet, retry_in=600.0):
    retry = None if retry_in is None else fleet.now + timedelta(seconds=retry_in)
    return Breaker(failures=3, open_since=fleet.now, retry_at=retry, last_error="no route")


@pytest.mark.parametrize("retry_in", [600, None])
def test_an_open_breaker_stops_all_creation(pool, seen, uid, retry_in):
    fleet = pool(min=3)
    fleet.history = History(breaker=broken(fleet, retry_in), up_checks=5)
    for snapshot in (seen(0.5, active=1), seen(0.99, active=3), dead(seen, uid, 2, 1)):
        decision = fleet.ask(snapshot)
        assert (decision.direction, decision.code) == ("hold", "BREAKER_OPEN")
        assert "3 boots in a row never joined (no route)" in decision.sentence


def test_after_a_failed_boot_the_next_one_waits_and_says_so(pool, seen):
    fleet = pool(min=3)
    once = Breaker(failures=1, retry_at=fleet.now + timedelta(seconds=5), last_error="no route")
    fleet.history = History(breaker=once)
    decision = fleet.ask(seen(0.5, active=1))
    assert (decision.direction, decision.code) == ("hold", "BOOT_RETRY")
    assert "the last boot failed (no route)" in decision.sentence
    fleet.history = History(breaker=once.model_copy(update={"retry_at": fleet.now}))
    decision = fleet.ask(seen(0.5, active=1))
    assert (decision.direction, decision.size) == ("up", 2), "no breaker yet: all that is missing"


def test_an_open_breaker_does_not_stop_shrinking(pool, seen):
    fleet = pool()
    fleet.history = History(breaker=broken(fleet), down_checks=4)
    assert fleet.ask(seen(0.1)).direction == "down"


def test_after_the_reset_time_one_node_is_tried(pool, seen):
    fleet = pool(min=5)
    fleet.history = History(breaker=broken(fleet, 0))
    decision = fleet.ask(seen(0.5, active=1))
    assert (decision.direction, decision.size, codes(decision)) == ("up", 1, ["BREAKER_PROBE"])
    waiting = fleet.ask(seen(0.5, active=1, pending=1))
    assert (waiting.direction, waiting.code) == ("hold", "BREAKER_OPEN")
    assert "has not joined yet" in waiting.sentence


@pytest.mark.parametrize(("opened", "limit", "size"), [(0, 10, 4), (8, 10, 2), (10, 10, 0), (12, 10, 0), (5, None, 4)])
def test_open_operations_are_limited(pool, seen, opened, limit, size):
    fleet = pool({"open_operations": opened, "open_limit": limit}, min=5)
    decision = fleet.ask(seen(0.5, active=1))
    assert decision.size == size
    assert (decision.direction, decision.code) == (
        ("up", "BELOW_MIN_FLEET_SIZE") if size else ("hold", "OPEN_OPERATIONS_LIMIT")
    )
    assert codes(decision) == ([] if size == 4 else ["OPEN_OPERATIONS_LIMIT"])


# ---------------------------------------------------------------------- observe


def test_observe_decides_the_same_and_acts_on_nothing(pool, seen):
    active, observe = pool(min=3), pool(min=3, mode="observe")
    snapshot = seen(0.5, active=1)
    would, does = observe.ask(snapshot), active.ask(snapshot)
    assert would == does.model_copy(update={"would": True})
    assert (acts(does), acts(would)) == (True, False)


def test_observe_keeps_saying_what_it_would_do(pool, seen):
    fleet = pool(mode="observe")
    fleet.tick(seen(0.9))
    assert [fleet.tick(seen(0.9)).code for _ in range(3)] == ["HIGH_FLEET_CPU_LOAD"] * 3
    assert fleet.history.last_up_at is None


# ---------------------------------------------------------------------- history


def test_what_could_not_be_written_has_not_happened(pool, seen):
    fleet = pool()
    fleet.tick(seen(0.9))
    assert fleet.tick(seen(0.9), acted=False).direction == "up"
    assert fleet.history.last_up_at is None
    assert fleet.tick(seen(0.9)).direction == "up"


def test_the_pools_record_is_the_truth_of_what_outlives_a_restart(pool, seen):
    fleet = pool()
    record = PoolRecord(
        name="web", retired=True, vanished=True, frozen_since=fleet.now, last_up_at=fleet.now, last_down_at=fleet.now,
        pause=pause(fleet, "in"), override=Override(size=3, since=fleet.now), breaker=Breaker(failures=1),
    )  # fmt: skip
    history = History(up_checks=1, down_checks=3, revision=9).with_record(record, open_operations=2, open_limit=5)
    for name in ("pause", "override", "retired", "vanished", "frozen_since", "breaker", "last_up_at", "last_down_at"):
        assert getattr(history, name) == getattr(record, name)
    assert (history.up_checks, history.down_checks, history.revision) == (1, 3, 9)
    assert (history.open_operations, history.open_limit) == (2, 5)


def test_every_evaluation_has_the_next_number(pool, seen):
    fleet = pool()
    assert [fleet.tick(seen(0.5)).revision for _ in range(3)] == [1, 2, 3]
