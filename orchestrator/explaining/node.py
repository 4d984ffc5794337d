"""Why a node is still there, and when it will leave."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from orchestrator.explaining.pool import described
from orchestrator.scaling import victims
from secbeat.clock import wire_time
from secbeat.settings import PoolSettings
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.nodes import NodeRecord, NodeState, NodeWhy
from secbeat.wire.operations import OperationError, OperationRecord

Load = Literal["counts", "warming", "stale", "silent"]
"""What is heard of an active node: metrics that count, a join of a moment ago, beats without metrics, nothing."""

_SAYS: dict[NodeState, str] = {
    "requested": "it was asked for; the provisioner has not started yet",
    "provisioning": "the provisioner is making it",
    "booting": "its machine is made and has not joined yet",
    "joining": "it has registered; its first heartbeat has not come yet",
    "warm": "it is kept ready, out of rotation",
    "draining": "it finishes its requests before it leaves",
    "terminating": "it has stopped serving; its machine is being removed",
    "unreachable": "no heartbeat comes; it counts until its own port has been tried as well",
    "failed": "it is silent and its own port does not answer; its machine is still to be removed",
    "gone": "it has left",
    "quarantined": "nobody here asked for it; it is reported and never removed by itself",
}
_KEPT: dict[NodeState, str] = {
    "requested": "BOOTING_CAPACITY",
    "provisioning": "BOOTING_CAPACITY",
    "booting": "BOOTING_CAPACITY",
    "joining": "BOOTING_CAPACITY",
    "unreachable": "SILENT",
    "quarantined": "NODE_NOT_OURS",
}
_HEARD: dict[Load, tuple[str, str]] = {
    "silent": ("SILENT", "no heartbeat comes; it counts until its own port has been tried as well"),
    "stale": ("STALE_METRICS", "it beats without metrics that count, so no scale-down chooses it"),
    "warming": ("WARMING_UP", "it has just joined, so no scale-down chooses it"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When a node leaves."""

    when: str = ""
    at: datetime | None = None


def why_node(
    record: NodeRecord,
    *,
    load: Load = "counts",
    decision: DecisionRecord | None = None,
    policy: PoolSettings | None = None,
    operation: OperationRecord | None = None,
    boot: OperationError | None = None,
) -> NodeWhy:
    """Why the node is still there.

    Args:
        decision: its pool's last one.
        operation: the open one that concerns it, else the last that could not remove it.
        boot: why its own boot failed.
    """
    blocked: list[str] = []
    if record.state == "active":
        sentence, plan = _active(record, load, decision, policy or PoolSettings(), blocked)
    else:
        sentence, plan = f"{record.state} since {wire_time(record.state_since)}: {_SAYS[record.state]}", Plan()
        if record.state in _KEPT:
            blocked.append(_KEPT[record.state])
        if record.state == "failed" and operation is None and decision is not None and decision.direction == "hold":
            blocked.append(decision.code)
    if operation is not None:
        if operation.error is not None and operation.state != "succeeded":
            blocked.insert(0, operation.error.code)
            sentence = f"{described(operation.error)}; {sentence}"
        stage = f": {operation.stage}" if operation.stage else ""
        sentence += f"; operation {operation.op_id} ({operation.action}) is {operation.state}{stage}"
        if operation.action == "destroy" and not operation.ended:
            by = operation.drain_deadline if operation.state == "draining" else operation.deadline
            plan = Plan(when=f"it is leaving, at the latest at {_clock(by or operation.deadline)}", at=by)
    if boot is not None:
        sentence = f"its boot failed: {described(boot)}; {sentence}"
    return NodeWhy(
        node_id=record.node_id,
        pool=record.pool,
        state=record.state,
        sentence=sentence,
        blocked_by=tuple(dict.fromkeys(blocked)),
        leaves=plan.when,
        leaves_at=plan.at,
        fix=_fix(record, operation),
    )


def _fix(record: NodeRecord, operation: OperationRecord | None) -> str | None:
    if operation is not None:
        return (
            f"secbeat jobs log {operation.op_id}" if operation.error else f"secbeat operations show {operation.op_id}"
        )
    if record.state in {"quarantined", "gone"}:
        return None
    if record.protected:
        return f"secbeat protect {record.node_id} --off"
    return f"secbeat drain {record.node_id}"


def _active(
    record: NodeRecord, load: Load, decision: DecisionRecord | None, policy: PoolSettings, blocked: list[str]
) -> tuple[str, Plan]:
    sentence = f"it serves pool {record.pool}"
    if load in _HEARD:
        code, sentence = _HEARD[load]
        blocked.append(code)
    if record.protected:
        blocked.append("PROTECTED")
        sentence += "; it is protected, so no scale-down chooses it"
    if decision is None:
        return sentence, Plan()
    own = bool(blocked)
    leaving = victims(decision)
    if record.node_id in leaving:
        will = "would be" if decision.would else "is"
        blocked += ["OBSERVE_MODE"] if decision.would else []
        return f"{sentence}; it {will} chosen to leave: {decision.sentence}", Plan(at=decision.at, when="now")
    if leaving:
        blocked.append("NOT_NEXT")
        return f"{sentence}; node {leaving[0]} leaves first: {decision.sentence}", _not_own(own, "after that one")
    if decision.direction in {"up", "replace"} or decision.winner == "high_cpu":
        blocked.append("HIGH_FLEET_CPU_LOAD" if decision.winner == "high_cpu" else decision.code)
        plan = _not_own(own, f"when cpu falls below {_percent(policy.scale_down_cpu_threshold)}")
        return f"{sentence}; the pool needs it: {decision.sentence}", plan
    return f"{sentence}; the pool holds at {decision.capacity}: {decision.sentence}", _held(
        record, decision, policy, blocked, own=own
    )


def _held(record: NodeRecord, decision: DecisionRecord, policy: PoolSettings, blocked: list[str], *, own: bool) -> Plan:
    """The pool shrinks not now: since when it will, and whether this node is the next."""
    first = next((one.node_id for one in decision.snapshot.candidates if one.blocked_by is None), None)
    if decision.code == "WAITING_FOR_CHECKS":
        if first != record.node_id:
            blocked += [] if own else ["NOT_NEXT"]
            return _not_own(own, "after those with fewer connections")
        left = max(policy.scale_down_checks - decision.down_checks, 1)
        at = decision.at + timedelta(seconds=left * policy.scaling_check_interval_seconds)
        when = (
            f"when cpu stays below {_percent(policy.scale_down_cpu_threshold)} until {_clock(at)} ({left} more checks)"
        )
        return Plan(when=when, at=at)
    blocked += [clamp.code for clamp in decision.clamps] or [decision.code]
    until = decision.clamps[0].until if decision.clamps else None
    if until is not None:
        return Plan(when=f"not before {_clock(until)}", at=until) if not own else Plan()
    low = _percent(policy.scale_down_cpu_threshold)
    return _not_own(own, f"when cpu stays below {low} for {policy.scale_down_checks} checks and nothing keeps it")


def _not_own(own: bool, when: str) -> Plan:
    """What the node itself is kept by comes before any plan of its pool."""
    return Plan() if own else Plan(when=when)


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _percent(fraction: float) -> str:
    return f"{round(100 * fraction, 2):g} %"
