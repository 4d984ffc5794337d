"""Why a pool has its size."""

from __future__ import annotations

from orchestrator.explaining.remedies import Situation, fix_for
from secbeat.clock import wire_time
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.operations import OperationError, OperationRecord
from secbeat.wire.pools import PoolWhy, Trouble

_AFTER_FAILURES = {"BOOT_RETRY", "BREAKER_OPEN", "BREAKER_PROBE"}
_VERBS = {"up": "growing", "down": "shrinking", "replace": "replacing a dead node", "hold": "holding"}


def why_pool(name: str, decision: DecisionRecord | None, situation: Situation) -> PoolWhy:
    """Why the pool is as it is, from the decision in force."""
    if decision is None:
        return PoolWhy(
            name=name, sentence="the pool was not evaluated yet; the next check comes with the interval", decision=None
        )
    waiting, failed = _waiting(situation), _failed(situation)
    held_by = None if decision.would else waiting or (failed if decision.code in _AFTER_FAILURES else None)
    code, fix = _cause(decision, situation, held_by)
    return PoolWhy(
        name=name,
        sentence=_sentence(decision, held_by, failed if held_by is None else None),
        code=code,
        fix=fix,
        trouble=held_by or failed,
        decision=decision,
    )


def why_pool_then(name: str, decision: DecisionRecord) -> PoolWhy:
    """Why it was as it was, from a decision of the past: nothing of it can be changed any more."""
    code = "OBSERVE_MODE" if decision.would else decision.code
    return PoolWhy(name=name, sentence=_sentence(decision), code=code, decision=decision)


def _cause(decision: DecisionRecord, situation: Situation, held_by: Trouble | None) -> tuple[str, str | None]:
    if held_by is not None:
        again = f"   (when it is mended, to try at once: secbeat resume {decision.pool})"
        return held_by.code, f"secbeat jobs log {held_by.op_id}{again}"
    if decision.would:
        return "OBSERVE_MODE", fix_for("OBSERVE_MODE", decision, situation)
    if decision.direction != "hold":
        return decision.code, f"secbeat operations --pool {decision.pool} --open   (nothing is wrong; this follows it)"
    return decision.code, fix_for(decision.code, decision, situation)


def _sentence(decision: DecisionRecord, held_by: Trouble | None = None, failed: Trouble | None = None) -> str:
    """The sentence; ``held_by`` stands before the decision's own, ``failed``, which holds up nothing now, behind it."""
    verb = _VERBS[decision.direction]
    says = f"observing (would be {verb})" if decision.would else verb
    first = last = ""
    if held_by is not None:
        told = f"{held_by.code}: {held_by.message}"[:200] in decision.sentence
        first = f"operation {held_by.op_id}, " if told else f"{described(held_by)}; operation {held_by.op_id}, "
    if failed is not None:
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


def _waiting(situation: Situation) -> Trouble | None:
    """A request for a node that is not accepted."""
    found = [op for op in situation.operations if op.action == "create" and op.error is not None and not op.ended]
    return _as_trouble(found[-1]) if found else None


def _failed(situation: Situation) -> Trouble | None:
    """The last boot, if it failed and none joined since."""
    if not situation.record.breaker.failures:
        return None
    found = [op for op in situation.operations if op.action == "create" and op.state == "failed"]
    return _as_trouble(found[-1]) if found else None


def _as_trouble(op: OperationRecord) -> Trouble | None:
    error = op.error
    if error is None:
        return None
    return Trouble(op_id=op.op_id, code=error.code, message=error.message, task=error.task)
