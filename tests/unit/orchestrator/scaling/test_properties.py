"""Whatever the inputs: the promises of the resource manager."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from orchestrator.scaling import History, acts, allowed_silence, decide, victims
from secbeat import catalogue
from secbeat.settings import PoolSettings
from secbeat.wire.decisions import Candidate, DecisionRecord, PoolSnapshot
from secbeat.wire.pools import Breaker, Override, Pause

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
relaxed = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])

fractions = st.floats(0, 1)
moments = st.none() | st.integers(-4000, 4000).map(lambda seconds: NOW + timedelta(seconds=seconds))
blocks = st.sampled_from([None, "PROTECTED", "WARMING_UP", "SILENT", "STALE_METRICS"])


@st.composite
def policies(draw) -> PoolSettings:
    low = draw(st.floats(0, 0.98))
    least = draw(st.integers(0, 12))
    return PoolSettings(
        min=least,
        max=draw(st.integers(least, 20)),
        mode=draw(st.sampled_from(["active", "active", "observe"])),
        scale_down_cpu_threshold=low,
        scale_up_cpu_threshold=draw(st.floats(low, 1, exclude_min=True)),
        scale_up_checks=draw(st.integers(1, 4)),
        scale_down_checks=draw(st.integers(1, 6)),
        max_step_up=draw(st.integers(1, 8)),
        scale_up_cooldown_seconds=draw(st.sampled_from([0, 300])),
        scale_down_cooldown_seconds=draw(st.sampled_from([0, 300])),
        min_fresh_fraction=draw(fractions),
    )


@st.composite
def snapshots(draw, fresh: int = 99) -> PoolSnapshot:
    active = draw(st.integers(0, 24))
    silent = draw(st.integers(0, active))
    warming = draw(st.integers(0, active - silent))
    weighed = draw(st.integers(0, min(active - silent - warming, fresh)))
    failed = draw(st.integers(0, 4))
    return PoolSnapshot(
        pool="web",
        active=active,
        silent=silent,
        warming=warming,
        fresh=weighed,
        cpu=draw(fractions) if weighed else None,
        pending=draw(st.integers(0, 6)),
        draining=draw(st.integers(0, 3)),
        failed=failed,
        dead=tuple(str(uuid.UUID(int=1000 + number)) for number in range(draw(st.integers(0, failed)))),
        candidates=tuple(
            Candidate(node_id=str(uuid.UUID(int=number)), connections=number, blocked_by=draw(blocks))
            for number in range(min(active, 8))
        ),
    )


@st.composite
def histories(draw, **fixed) -> History:
    pause = Pause(direction=draw(st.sampled_from(["in", "out", "both"])), since=NOW, until=draw(moments))
    override = Override(size=draw(st.integers(0, 30)), since=NOW, until=draw(moments))
    breaker = Breaker(failures=3, open_since=NOW, retry_at=draw(moments))
    values = {
        "up_checks": draw(st.integers(0, 9)),
        "down_checks": draw(st.integers(0, 9)),
        "last_up_at": draw(moments),
        "last_down_at": draw(moments),
        "last_replace_at": draw(moments),
        "pause": draw(st.sampled_from([None, None, pause])),
        "override": draw(st.sampled_from([None, None, override])),
        "breaker": draw(st.sampled_from([Breaker(), Breaker(), breaker])),
        "retired": draw(st.sampled_from([False, False, False, True])),
        "vanished": draw(st.sampled_from([False, False, False, True])),
        "thawed": draw(st.booleans()),
        "open_operations": draw(st.integers(0, 5)),
        "open_limit": draw(st.none() | st.integers(0, 8)),
    }
    return History(**{**values, **fixed})


def said(policy, history, snapshot) -> DecisionRecord:
    return decide(policy, history, snapshot, NOW)


@relaxed
@given(policies(), histories(), snapshots())
def test_every_outcome_has_a_code_a_sentence_and_consistent_numbers(policy, history, snapshot):
    decision = said(policy, history, snapshot)
    assert catalogue.lookup(decision.code).kind == "reason"
    assert all(catalogue.lookup(clamp.code).kind == "reason" for clamp in decision.clamps)
    assert len(decision.sentence) > 10
    assert decision.snapshot == snapshot
    assert (decision.size == 0) == (decision.direction == "hold")
    assert decision.capacity == snapshot.active + snapshot.pending
    leaving = victims(decision)
    if decision.direction == "hold":
        assert decision.desired == decision.capacity
        assert leaving == ()
    elif decision.direction == "up":
        assert decision.desired == decision.capacity + decision.size
        assert leaving == ()
    else:
        assert len(leaving) == decision.size
        assert leaving[0] == decision.victim
        assert len(set(leaving)) == len(leaving)
    assert DecisionRecord.decode(decision.encode()).plain() == decision.plain()


@relaxed
@given(policies(), histories(), snapshots())
def test_a_decision_is_what_validation_would_have_made_of_it(policy, history, snapshot):
    decision = said(policy, history, snapshot)
    assert decision == DecisionRecord.model_validate(decision.model_dump())
    assert decision.model_fields_set == DecisionRecord.model_fields.keys()


@relaxed
@given(policies(), histories(), snapshots())
def test_the_same_inputs_say_the_same(policy, history, snapshot):
    assert said(policy, history, snapshot) == said(policy, history, snapshot)


@relaxed
@given(policies(), histories(), snapshots())
def test_never_above_max_by_our_hand(policy, history, snapshot):
    decision = said(policy, history, snapshot)
    if decision.direction in {"up", "replace"}:
        assert snapshot.active + snapshot.pending + decision.size <= policy.max


@relaxed
@given(policies(), histories(retired=False), snapshots())
def test_never_below_min_by_our_hand(policy, history, snapshot):
    decision = said(policy, history, snapshot)
    if decision.direction == "down" and decision.victim not in snapshot.dead:
        assert snapshot.active + snapshot.pending - decision.size >= policy.min


@relaxed
@given(policies(), histories(), snapshots())
def test_no_scale_up_by_load_while_capacity_boots(policy, history, snapshot):
    decision = said(policy, history, snapshot)
    if snapshot.pending:
        assert decision.code not in {"HIGH_FLEET_CPU_LOAD", "LOW_FLEET_CPU_LOAD"}


@relaxed
@given(policies(), histories(retired=False), snapshots(fresh=0))
def test_missing_data_never_shrinks_a_pool_by_its_load(policy, history, snapshot):
    decision = said(policy, history, snapshot)
    assert decision.code not in {"HIGH_FLEET_CPU_LOAD", "LOW_FLEET_CPU_LOAD"}
    if decision.direction == "down" and decision.victim not in snapshot.dead:
        assert decision.code in {"OVERRIDE", "ABOVE_MAX_FLEET_SIZE"}


@relaxed
@given(policies(), histories(retired=False), snapshots())
def test_a_node_of_which_nothing_fresh_is_known_is_never_chosen(policy, history, snapshot):
    blocked = {found.node_id: found.blocked_by for found in snapshot.candidates}
    for node_id in victims(said(policy, history, snapshot)):
        assert blocked.get(node_id) in {None, "WARMING_UP"}


@relaxed
@given(policies(), histories(), snapshots())
def test_observe_never_yields_a_decision_that_acts_and_active_says_the_same(policy, history, snapshot):
    observe = said(policy.model_copy(update={"mode": "observe"}), history, snapshot)
    active = said(policy.model_copy(update={"mode": "active"}), history, snapshot)
    assert observe.would
    assert not acts(observe)
    assert observe.model_copy(update={"would": False}) == active
    assert history.after(observe).last_up_at == history.last_up_at
    assert history.after(observe).last_down_at == history.last_down_at


@relaxed
@given(policies(), histories(retired=False, thawed=False), snapshots())
def test_an_outage_changes_nothing(policy, history, snapshot):
    missing = snapshot.silent + snapshot.failed
    if missing > allowed_silence(snapshot.active + snapshot.failed):
        assert said(policy, history, snapshot).direction == "hold"


@relaxed
@given(policies(), histories(retired=False), snapshots(), st.sampled_from(["in", "out", "both"]))
def test_a_pause_holds_what_it_names(policy, history, snapshot, direction):
    paused = replace(history, pause=Pause(direction=direction, since=NOW))
    allowed = {"in": {"up", "replace", "hold"}, "out": {"down", "hold"}, "both": {"hold"}}
    assert said(policy, paused, snapshot).direction in allowed[direction]


@relaxed
@given(policies(), histories(retired=False), snapshots())
def test_a_vanished_pool_is_left_alone(policy, history, snapshot):
    assert said(policy, replace(history, vanished=True), snapshot).direction == "hold"


@relaxed
@given(policies(), histories(retired=False), snapshots())
def test_an_open_breaker_creates_nothing(policy, history, snapshot):
    breaker = Breaker(failures=3, open_since=NOW, retry_at=NOW + timedelta(seconds=1))
    assert said(policy, replace(history, breaker=breaker), snapshot).direction in {"hold", "down"}


@relaxed
@given(
    noise=st.lists(st.floats(-0.05, 0.05), min_size=60, max_size=120),
    base=st.sampled_from([0.30, 0.80]),
    active=st.integers(2, 6),
)
def test_noise_around_a_threshold_does_not_flap(noise, base, active):
    """Directions never alternate, and a scale-down never follows any scaling within its cooldown."""
    policy, history, now, size = PoolSettings(max=30), History(), NOW, active
    demand = base * active
    acted: list[tuple[str, datetime]] = []
    for wobble in noise:
        cpu = min(max(demand / size + wobble, 0.0), 1.0)
        candidates = tuple(Candidate(node_id=str(uuid.UUID(int=n)), connections=n) for n in range(size))
        snapshot = PoolSnapshot(pool="web", active=size, fresh=size, cpu=cpu, candidates=candidates[:8])
        decision = decide(policy, history, snapshot, now)
        history = history.after(decision)
        if decision.direction == "up":
            size += decision.size
        elif decision.direction == "down":
            size -= decision.size
        if decision.size:
            acted.append((decision.direction, now))
        now += timedelta(seconds=60)
    assert len({direction for direction, _ in acted}) <= 1
    for (_, before), (direction, after) in pairwise(acted):
        assert direction == "up" or after - before >= timedelta(seconds=300)
    assert 1 <= size <= 30
