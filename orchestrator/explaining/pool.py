"""Why a pool has its size."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.explaining.remedies import Situation, fix_for
from secbeat.clock import wire_time
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.operations import OperationError, OperationRecord
from secbeat.wire.pools import PoolWhy, Trouble

_GROWS = {"high_cpu", "below_min", "dead_nodes", "override"}
_VERBS = {"up": "growing", "down": "shrinking", "replace": "replacing a dead node", "hold": "holding"}


def why_pool(name: str, decision: DecisionRecord | None, situation: Situation) -> PoolWhy:
    """Why the pool is as it is, from the decision in force."""
    if decision is None:
        return PoolWhy(
            name=name, sentence="the pool was not evaluated yet; the next check comes with the interval", decision=None
        )
    failed = _trouble(situation.operations, failures=situation.record.breaker.failures)
    code, fix = _cause(decision, situation, failed if failed is not None and _explains(decision) else None)
    return PoolWhy(
        name=name,
        sentence=_sentence(decision, failed),
        code=code,
        fix=fix,
        trouble=failed,
        decision=decision,
    )


def why_pool_then(name: str, decision: DecisionRecord) -> PoolWhy:
    """Why it was as it was, from a decision of the past: nothing of it can be changed any more."""
    code = "OBSERVE_MODE" if decision.would else decision.code
    return PoolWhy(name=name, sentence=_sentence(decision, None), code=code, decision=decision)


def _cause(decision: DecisionRecord, situation: Situation, failed: Trouble | None) -> tuple[str, str | None]:
    if failed is not None:
        again = f"   (when it is mended, to try at once: secbeat resume {decision.pool})"
        return failed.code, f"secbeat jobs log {failed.op_id}{again}"
    if decision.would:
        return "OBSERVE_MODE", fix_for("OBSERVE_MODE", decision, situation)
    if decision.direction != "hold":
        return decision.code, f"secbeat operations --pool {decision.pool} --open   (nothing is wrong; this follows it)"
    return decision.code, fix_for(decision.code, decision, situation)


def _sentence(decision: DecisionRecord, failed: Trouble | None) -> str:
    verb = _VERBS[decision.direction]
    says = f"observing (would be {verb})" if decision.would else verb
    first = last = ""
    if failed is not None and _explains(decision):
        told = f"{failed.code}: {failed.message}"[:200] in decision.sentence
        first = f"operation {failed.op_id}, " if told else f"{described(failed)}; operation {failed.op_id}, "
    elif failed is not None:
        last = f"; the last boot failed: {described(failed)}; operation {failed.op_id}"
    since = ""
    if decision.equal_count > 1 and decision.equal_since is not None:
        since = f" (the same since {wire_time(decision.equal_since)}, {decision.equal_count} checks)"
    also = "".join(f"; also: {clamp.sentence}" for clamp in decision.clamps if clamp.sentence != decision.sentence)
    return f"{says} at {decision.capacity}: {first}{decision.sentence}{also}{last}{since}"


def described(error: Trouble | OperationError) -> str:
    """Code, sentence and task of a failure."""
    task = f" (task '{error.task}')" if error.task and error.task not in error.message else ""
    return f"{error.code}: {error.message}{task}"


def _explains(decision: DecisionRecord) -> bool:
    """Whether the pool would be another one without this failure: it grows, or it holds and would grow."""
    return not decision.would and (decision.winner in _GROWS or decision.code in {"BOOTING_CAPACITY", "WARMING_UP"})


def _trouble(operations: Sequence[OperationRecord], *, failures: int) -> Trouble | None:
    """A request that is not accepted, else the last boot if it failed and none joined since."""
    creates = [op for op in operations if op.action == "create" and op.error is not None]
    waiting = [op for op in creates if not op.ended]
    failed = [op for op in creates if op.state == "failed"] if failures else []
    found = waiting[-1:] or failed[-1:]
    if not found or (error := found[0].error) is None:
        return None
    return Trouble(op_id=found[0].op_id, code=error.code, message=error.message, task=error.task)
