"""The answers of ``secbeat why``."""

from __future__ import annotations

from orchestrator.scaling.decide import victims
from secbeat import catalogue
from secbeat.clock import wire_time
from secbeat.settings import PoolSettings
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.nodes import NodeRecord, NodeState, NodeWhy
from secbeat.wire.operations import OperationRecord
from secbeat.wire.pools import PoolWhy

_FINE = frozenset({"BETWEEN_THRESHOLDS", "HIGH_FLEET_CPU_LOAD", "LOW_FLEET_CPU_LOAD", "WAITING_FOR_CHECKS"})
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


def why_pool(name: str, decision: DecisionRecord | None) -> PoolWhy:
    """Why the pool is as it is, from the decision in force (or any one of the ledger)."""
    if decision is None:
        return PoolWhy(
            name=name, sentence="the pool was not evaluated yet; the next check comes with the interval", decision=None
        )
    verb = {"up": "growing", "down": "shrinking", "replace": "replacing a dead node", "hold": "holding"}
    would = "observing (would be " + verb[decision.direction] + ")" if decision.would else verb[decision.direction]
    since = ""
    if decision.equal_count > 1 and decision.equal_since is not None:
        since = f" (the same since {wire_time(decision.equal_since)}, {decision.equal_count} checks)"
    also = "".join(f"; also: {clamp.sentence}" for clamp in decision.clamps if clamp.sentence != decision.sentence)
    return PoolWhy(
        name=name,
        sentence=f"{would} at {decision.capacity}: {decision.sentence}{also}{since}",
        fix=None if decision.code in _FINE else _remedy(decision.code),
        decision=decision,
    )


def why_node(
    record: NodeRecord,
    *,
    silent: bool = False,
    decision: DecisionRecord | None = None,
    policy: PoolSettings | None = None,
    operation: OperationRecord | None = None,
) -> NodeWhy:
    """Why the node is still there; ``decision`` is its pool's last one, ``operation`` the open one that concerns it."""
    blocked: list[str] = []
    if record.state == "active":
        sentence = _active(record, silent=silent, decision=decision, policy=policy, blocked=blocked)
    else:
        sentence = f"{record.state} since {wire_time(record.state_since)}: {_SAYS[record.state]}"
    if operation is not None and not operation.ended:
        sentence += f"; operation {operation.op_id} ({operation.action}) is {operation.state}"
        sentence += f": {operation.stage}" if operation.stage else ""
        if operation.error is not None:
            blocked.append(operation.error.code)
            sentence += f"; {operation.error.message}"
    return NodeWhy(
        node_id=record.node_id, pool=record.pool, state=record.state, sentence=sentence, blocked_by=tuple(blocked)
    )


def _active(
    record: NodeRecord,
    *,
    silent: bool,
    decision: DecisionRecord | None,
    policy: PoolSettings | None,
    blocked: list[str],
) -> str:
    sentence = f"it serves pool {record.pool}"
    if silent:
        blocked.append("SILENT")
        sentence = "no heartbeat comes; it counts until its own port has been tried as well"
    if record.protected:
        blocked.append("PROTECTED")
        sentence += "; it is protected, so no scale-down chooses it"
    if decision is None:
        return sentence
    leaving = victims(decision)
    if record.node_id in leaving:
        will = "would be" if decision.would else "is"
        return f"{sentence}; it {will} chosen to leave: {decision.sentence}"
    if decision.direction == "hold":
        blocked.append(decision.code)
        return f"{sentence}; the pool holds at {decision.capacity}: {decision.sentence}"
    if decision.direction == "down" and leaving:
        return f"{sentence}; node {leaving[0]} leaves first: {decision.sentence}"
    if policy is not None and decision.capacity <= policy.min:
        blocked.append("AT_MIN")
    return f"{sentence}; the pool needs it: {decision.sentence}"


def _remedy(code: str) -> str | None:
    try:
        return catalogue.lookup(code).remedy
    except KeyError:
        return None
