"""What can change a pool's size, each as one evaluation found it: the answer to "why this number"."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from orchestrator.scaling.building import build
from orchestrator.scaling.facts import Facts
from secbeat.settings import PoolSettings
from secbeat.wire.decisions import Trigger, TriggerName

_REMEMBERED = 256
_revisions: dict[int, tuple[PoolSettings, str]] = {}


def policy_revision(policy: PoolSettings) -> str:
    """Twelve hexadecimal digits that change with every value of the policy but its mode, and with nothing else.

    A pool that observes decides by the same policy; its decisions say ``would``. Remembered by identity: a reload makes
    new policies and never changes one in place.
    """
    found = _revisions.get(id(policy))
    if found is None or found[0] is not policy:
        if len(_revisions) >= _REMEMBERED:
            _revisions.clear()
        found = (policy, hashlib.sha256(policy.model_dump_json(exclude={"mode"}).encode()).hexdigest()[:12])
        _revisions[id(policy)] = found
    return found[1]


def triggers(facts: Facts) -> tuple[Trigger, ...]:
    """All of them, met or not, in the order in which they decide."""
    policy, capacity = facts.policy, facts.capacity
    found = [_cpu_high(facts), _cpu_low(facts)]
    # Counts are whole numbers on both sides, so these compare what the rules compare.
    found.append(_count("below_min", capacity, policy.min, met=capacity < policy.min, size=policy.min))
    found.append(_count("above_max", capacity, policy.max, met=capacity > policy.max, size=policy.max))
    if facts.unreplaced:
        found.append(_count("dead_nodes", facts.unreplaced, 0, met=True, size=capacity + 1))
    if (wanted := facts.wanted) is not None:
        found.append(_count("override", capacity, wanted, met=capacity != wanted, size=wanted))
    if facts.history.retired:
        found.append(_count("retired", capacity, 0, met=capacity > 0, size=0))
    return tuple(found)


def _cpu_high(facts: Facts) -> Trigger:
    policy = facts.policy
    return build(
        Trigger,
        name="high_cpu",
        value=facts.seen.cpu,
        limit=policy.scale_up_cpu_threshold,
        met=facts.high,
        checks=facts.up_checks,
        needed=policy.scale_up_checks,
        size=facts.capacity + facts.step_up if facts.high else None,
        formula=_growth(facts) if facts.high else "",
    )


def _growth(facts: Facts) -> str:
    policy = facts.policy
    return (
        f"ceil({facts.cpu:.4g} x {facts.seen.active} / {policy.scale_up_cpu_threshold:g}) = {facts.needed}, "
        f"from {facts.capacity} at most {policy.max_step_up} at a time"
    )


def _cpu_low(facts: Facts) -> Trigger:
    policy = facts.policy
    return build(
        Trigger,
        name="low_cpu",
        value=facts.seen.cpu,
        limit=policy.scale_down_cpu_threshold,
        met=facts.low,
        checks=facts.down_checks,
        needed=policy.scale_down_checks,
        size=max(facts.capacity - 1, 0) if facts.low else None,
        formula=f"{facts.capacity} - 1, one at a time" if facts.low else "",
    )


@lru_cache(maxsize=1024)
def _count(name: TriggerName, value: int, limit: int, *, met: bool, size: int) -> Trigger:
    """Remembered: a pool that is left alone finds the same at every check, and a record can be shared."""
    return build(
        Trigger,
        name=name,
        value=float(value),
        limit=float(limit),
        met=met,
        checks=1 if met else 0,
        needed=1,
        size=size if met else None,
        formula="",
    )
