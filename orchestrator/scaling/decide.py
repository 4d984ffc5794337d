"""The resource manager's verdict for one pool: pure, synchronous, the clock an argument.

In this order, the first that applies decides:

1. what operators said to all of it: retired, vanished from the file, paused in both directions
2. an outage: more nodes silent or dead than can be their own fault
3. too few nodes: below min, or below an operator's size
4. dead nodes: one replacement per interval
5. too many nodes: above an operator's size, or above max
6. no sound picture of the load
7. the thresholds
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from msgspec.structs import replace

from orchestrator.scaling import limits
from orchestrator.scaling.case import Case, count, percent
from orchestrator.scaling.history import History
from orchestrator.scaling.summary import allowed_silence
from secbeat.settings import PoolSettings
from secbeat.wire.decisions import Candidate, Clamp, DecisionRecord, PoolSnapshot

_ANY = frozenset({"WARMING_UP", "STALE_METRICS", "SILENT", "PROTECTED"})
_BY_SIZE = frozenset({"WARMING_UP"})
# What does not keep a node when the pool shrinks for this reason.
_PASSES: dict[str, frozenset[str]] = {"RETIRED": _ANY, "OVERRIDE": _BY_SIZE, "ABOVE_MAX_FLEET_SIZE": _BY_SIZE}


def decide(policy: PoolSettings, history: History, snapshot: PoolSnapshot, now: datetime) -> DecisionRecord:
    """One decision, whatever the inputs: direction, size, one reason code, one sentence, every limit that applied."""
    case = Case(policy, history, snapshot, now)
    for rule in (_retired, _vanished, _paused, _outage, _too_few, _dead, _too_many, _blind, _high, _low):
        if (decision := rule(case)) is not None:
            return decision
    return case.record("hold", "BETWEEN_THRESHOLDS", _between(case))


def acts(decision: DecisionRecord) -> bool:
    """The gate: whether anything may be done about this decision. Never in mode 'observe'."""
    return decision.direction != "hold" and decision.size > 0 and not decision.would


def victims(decision: DecisionRecord) -> tuple[str, ...]:
    """The nodes that a scale-down removes, in order; the dead node of a replacement; else none."""
    if decision.direction not in {"down", "replace"}:
        return ()
    if decision.code == "UNEXPECTED_NODE_FAILURE":
        return (decision.victim,) if decision.victim is not None else ()
    passes = _PASSES.get(decision.code, frozenset())
    return tuple(found.node_id for found in _leavers(decision.snapshot.candidates, passes))[: decision.size]


def _leavers(candidates: Iterable[Candidate], passes: frozenset[str]) -> list[Candidate]:
    return [found for found in candidates if found.blocked_by is None or found.blocked_by in passes]


# ---------------------------------------------------------------------- what operators said


def _retired(case: Case) -> DecisionRecord | None:
    if not case.history.retired:
        return None
    case.won_by("retired", 0)
    found = _leavers(case.seen.candidates, _ANY)
    if not found:
        rest = [f"{count(case.seen.pending)} still on the way"] if case.seen.pending else []
        rest += [f"{count(case.seen.draining)} draining"] if case.seen.draining else []
        sentence = f"the pool is retired; {', '.join(rest) or 'it is empty'}"
        return case.record("hold", "RETIRED", sentence)
    sentence = f"the pool is retired: removing {len(found)} of {count(case.seen.active)}, whatever min says"
    return case.record("down", "RETIRED", sentence, size=len(found), victim=found[0].node_id)


def _vanished(case: Case) -> DecisionRecord | None:
    if not case.history.vanished:
        return None
    sentence = f"the pool is no longer in the configuration; its {count(case.capacity)} stay as they are"
    return case.hold(Clamp(code="POOL_VANISHED", sentence=sentence))


def _paused(case: Case) -> DecisionRecord | None:
    if case.pause is None or case.pause.direction != "both":
        return None
    # What the pause holds back is the one thing that one wants to know about it.
    held = decide(case.policy, replace(case.history, pause=None), case.seen, case.now)
    clamp = limits.paused_out(case)
    why = clamp.sentence.removeprefix("growth is ") if clamp is not None else ""
    without = f"; without the pause: {held.direction} {held.size}, {held.sentence}" if held.size else ""
    case.winner, case.asked = held.winner, held.wanted
    return case.hold(Clamp(code="PAUSED_BOTH", sentence=f"the pool is {why}{without}"[:2000], until=case.pause.until))


# ---------------------------------------------------------------------- outages and sizes


def _outage(case: Case) -> DecisionRecord | None:
    if not case.outage or case.history.thawed:
        return None
    sentence = (
        f"{case.seen.silent} silent and {case.unreplaced} dead of {count(case.known)}: more than "
        f"{allowed_silence(case.known)} is an outage, so nothing is created or destroyed"
    )
    return case.hold(Clamp(code="MASS_SILENCE", sentence=sentence))


def _too_few(case: Case) -> DecisionRecord | None:
    target = case.policy.min if case.wanted is None else case.wanted
    # Dead nodes are made good one by one, below; the rest at once.
    missing = target - case.capacity - case.unreplaced
    if missing <= 0:
        return None
    if case.wanted is not None and case.wanted > case.policy.min:
        code, limit = "OVERRIDE", f"the size set by {_by(case)} is {target}"
        case.won_by("override", target)
    else:
        code, limit = "BELOW_MIN_FLEET_SIZE", f"min is {target}"
        case.won_by("below_min", target)
    sentence = f"the pool has {count(case.capacity)} and {limit}"
    return _grow(case, code, sentence, missing, blocks=(limits.paused_out, limits.breaker))


def _dead(case: Case) -> DecisionRecord | None:
    if not case.dead:
        return None
    victim = case.dead[0]
    case.won_by("dead_nodes", case.capacity + 1)
    if (reason := _surplus(case)) is not None:
        if (clamp := limits.paused_in(case)) is not None:
            return case.hold(clamp)
        sentence = f"node {victim} is dead and {reason}: it is removed without a replacement"
        code = "UNEXPECTED_NODE_FAILURE"
        return case.record("down", code, sentence, size=1, victim=victim, desired=case.capacity)
    sentence = f"node {victim} is silent and dead on its own port; {case.unreplaced} of {count(case.known)} dead"
    blocks = (limits.paused_out, limits.breaker, limits.paced)
    return _grow(case, "UNEXPECTED_NODE_FAILURE", sentence, 1, blocks=blocks, victim=victim)


def _surplus(case: Case) -> str | None:
    """Why the pool does not need a dead node back."""
    if case.wanted is not None:
        return f"the size set by {_by(case)} is {case.wanted}" if case.capacity >= case.wanted else None
    if case.capacity >= case.policy.max:
        return f"the pool has its max of {case.policy.max}"
    if case.capacity >= case.policy.min and case.down_checks >= case.policy.scale_down_checks:
        return f"cpu {percent(case.cpu)} is below {percent(case.policy.scale_down_cpu_threshold)}"
    return None


def _too_many(case: Case) -> DecisionRecord | None:
    if case.wanted is not None:
        target, code, limit = case.wanted, "OVERRIDE", f"the size set by {_by(case)} is {case.wanted}"
    else:
        target, code, limit = case.policy.max, "ABOVE_MAX_FLEET_SIZE", f"max is {case.policy.max}"
    excess = case.capacity - target
    if excess > 0 or case.wanted is not None:
        case.won_by("above_max" if case.wanted is None else "override", target)
    if excess <= 0:
        return None if case.wanted is None else case.record("hold", code, _override(case), clamps=_resized(case))
    sentence = f"the pool has {count(case.capacity)} and {limit}"
    if (clamp := limits.paused_in(case)) is not None:
        return case.hold(clamp)
    found = _leavers(case.seen.candidates, _PASSES[code])[:excess]
    if not found:
        return case.hold(_nobody(case, sentence))
    removed = f"{sentence}: removing {count(len(found))} with the fewest connections"
    return case.record("down", code, removed, size=len(found), victim=found[0].node_id, clamps=_resized(case))


def _override(case: Case) -> str:
    override = case.history.override
    until = "until 'resume'" if override is None or override.until is None else f"until {override.until:%H:%M:%SZ}"
    return f"the pool has the {count(case.capacity)} that {_by(case)} asked for, {until}"


def _resized(case: Case) -> tuple[Clamp, ...]:
    """The limit that changed an operator's size."""
    override = case.history.override
    if override is None or case.wanted is None or override.size == case.wanted:
        return ()
    code, name = ("AT_MAX", "max") if override.size > case.wanted else ("AT_MIN", "min")
    return (Clamp(code=code, sentence=f"{override.size} was asked for, {name} is {case.wanted}"),)


def _by(case: Case) -> str:
    override = case.history.override
    return override.by if override is not None and override.by else "an operator"


# ---------------------------------------------------------------------- load


def _blind(case: Case) -> DecisionRecord | None:
    if case.measured:
        return None
    if case.seen.active == 0:
        return case.hold(limits.booting(case) or Clamp(code="AT_MIN", sentence="the pool is empty and min is 0"))
    if case.seen.fresh == 0 and case.seen.warming == case.seen.active:
        sentence = (
            f"{count(case.seen.warming)} joined less than {case.policy.warmup_seconds:g} s ago: no load to judge by"
        )
        return case.hold(Clamp(code="WARMING_UP", sentence=sentence))
    if case.seen.fresh == 0:
        sentence = f"none of {count(case.eligible)} has sent fresh metrics; missing data changes nothing"
        return case.hold(Clamp(code="NO_FRESH_METRICS", sentence=sentence))
    sentence = (
        f"{case.seen.fresh} of {count(case.eligible)} have fresh metrics, "
        f"{percent(case.policy.min_fresh_fraction)} are needed; missing data changes nothing"
    )
    return case.hold(Clamp(code="TOO_FEW_FRESH_METRICS", sentence=sentence))


def _high(case: Case) -> DecisionRecord | None:
    if not case.high:
        return None
    threshold = percent(case.policy.scale_up_cpu_threshold)
    above = f"cpu {percent(case.cpu)} of {count(case.seen.fresh)} is above {threshold}"
    case.won_by("high_cpu", case.capacity + case.step_up)
    # Limits that more checks would not change are named at once.
    if clamps := _all(case, (limits.at_max, limits.booting, limits.warming)):
        return case.hold(*clamps)
    needed = case.policy.scale_up_checks
    if case.up_checks < needed:
        sentence = f"{above}, check {case.up_checks} of {needed} before a scale-up"
        return case.hold(Clamp(code="WAITING_FOR_CHECKS", sentence=sentence))
    sentence = f"{above} for {count(case.up_checks, 'check')}"
    blocks = (limits.paused_out, limits.breaker, limits.cooldown_up)
    return _grow(case, "HIGH_FLEET_CPU_LOAD", sentence, case.step_up, blocks=blocks)


def _low(case: Case) -> DecisionRecord | None:
    if not case.low:
        return None
    threshold = percent(case.policy.scale_down_cpu_threshold)
    below = f"cpu {percent(case.cpu)} of {count(case.seen.fresh)} is below {threshold}"
    case.won_by("low_cpu", case.capacity - 1)
    if clamps := _all(case, (limits.at_min, limits.booting)):
        return case.hold(*clamps)
    needed = case.policy.scale_down_checks
    if case.down_checks < needed:
        sentence = f"{below}, check {case.down_checks} of {needed} before a scale-down"
        return case.hold(Clamp(code="WAITING_FOR_CHECKS", sentence=sentence))
    blocks = (limits.paused_in, limits.unhealthy, limits.draining, limits.cooldown_down, limits.flap)
    if clamps := _all(case, blocks):
        return case.hold(*clamps)
    found = _leavers(case.seen.candidates, frozenset())
    if not found:
        return case.hold(_nobody(case, below))
    victim = found[0]
    sentence = (
        f"{below} for {count(case.down_checks, 'check')}: removing the node with the fewest connections "
        f"({victim.connections})"
    )
    return case.record("down", "LOW_FLEET_CPU_LOAD", sentence, size=1, victim=victim.node_id)


def _between(case: Case) -> str:
    low, high = case.policy.scale_down_cpu_threshold, case.policy.scale_up_cpu_threshold
    return f"cpu {percent(case.cpu)} of {count(case.seen.fresh)} is within {percent(low)} to {percent(high)}"


# ---------------------------------------------------------------------- shared


def _all(case: Case, blocks: Iterable[Callable[[Case], Clamp | None]]) -> tuple[Clamp, ...]:
    return tuple(clamp for block in blocks if (clamp := block(case)) is not None)


def _nobody(case: Case, wish: str) -> Clamp:
    """Nobody can leave: all are protected, or at least nobody is fit to be chosen."""
    blocked = [found.blocked_by for found in case.seen.candidates]
    if blocked and all(code == "PROTECTED" for code in blocked):
        return Clamp(code="ALL_PROTECTED", sentence=f"{wish}, but every node is protected")
    return Clamp(code="NO_VICTIM", sentence=f"{wish}, but no node is fit to leave: they boot, warm up or are silent")


def _grow(
    case: Case,
    code: str,
    sentence: str,
    size: int,
    *,
    blocks: Iterable[Callable[[Case], Clamp | None]],
    victim: str | None = None,
) -> DecisionRecord:
    """Add ``size`` nodes as far as the limits let; ``victim`` makes it a replacement."""
    clamps = list(_all(case, blocks))
    if clamps:
        return case.hold(*clamps)
    if size > (room := case.policy.max - case.capacity):
        clamps.append(
            Clamp(code="AT_MAX", sentence=f"{count(max(room, 0))} instead of {size}: max is {case.policy.max}")
        )
        size = max(room, 0)
    for limit in (limits.breaker_probe, limits.open_operations):
        size, clamp = limit(case, size)
        clamps += [clamp] if clamp is not None else []
    if size == 0:
        return case.hold(*clamps)
    clamps += _resized(case) if code == "OVERRIDE" else ()
    if victim is not None:
        return case.record("replace", code, f"{sentence}: replacing it", size=1, clamps=tuple(clamps), victim=victim)
    change = f"adding {count(size)} ({case.capacity} to {case.capacity + size} of {case.policy.max})"
    return case.record("up", code, f"{sentence}: {change}", size=size, clamps=tuple(clamps))
