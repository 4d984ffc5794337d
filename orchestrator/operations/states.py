"""The one function that changes an operation's state; the diagram stands in ``secbeat.wire.operations``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orchestrator.operations import stages
from secbeat.wire.operations import ENDED, OperationRecord, OperationState

_CREATE: Mapping[OperationState, frozenset[OperationState]] = {
    "pending": frozenset({"accepted", "booting", "failed"}),
    "accepted": frozenset({"booting", "succeeded", "failed"}),
    "booting": frozenset({"succeeded", "failed"}),
}
_DESTROY: Mapping[OperationState, frozenset[OperationState]] = {
    "pending": frozenset({"draining", "drained", "cancelled"}),
    "draining": frozenset({"drained", "cancelled"}),
    "drained": frozenset({"tearing_down", "succeeded", "failed", "needs_operator"}),
    "tearing_down": frozenset({"succeeded", "failed", "needs_operator"}),
}


class IllegalStep(Exception):
    """The diagram has no such arrow: a defect of the caller."""


def change(record: OperationRecord, *, now: datetime, **changes: Any) -> OperationRecord:
    """``record`` with facts changed, its state untouched."""
    return record.model_copy(update={"updated_at": now, **changes})


def advance(record: OperationRecord, state: OperationState, *, now: datetime, **changes: Any) -> OperationRecord:
    """``record`` in ``state``.

    A step starts with no attempts and no retry planned; an ended record says when it ended. ``stages`` among the
    changes are what other records tell; the stage that ends here is added to them.

    Raises:
        IllegalStep: the diagram has no arrow from the record's state to ``state``.
    """
    arrows = _CREATE if record.action == "create" else _DESTROY
    if state not in arrows.get(record.state, frozenset()):
        raise IllegalStep(f"{record.action} {record.op_id}: {record.state} -> {state}")
    facts: dict[str, Any] = {"attempts": 0, "next_attempt_at": None, "state": state}
    if state in ENDED:
        facts["ended_at"] = now
    known = record.model_copy(update={"stages": changes.pop("stages", record.stages)})
    facts["stages"] = stages.advanced(known, state, now)
    return change(record, now=now, **{**facts, **changes})
