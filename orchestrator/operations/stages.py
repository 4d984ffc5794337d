"""Where an operation's time went: the stages from the decision to its end, from the records' own timestamps.

    create    webhook ─ queue ─ engine ─ boot ─ join ─ rotation
    destroy   notice ─ drain ─ webhook ─ queue ─ teardown ─ confirm

A stage ends at a moment that some record tells: the receiver's answer, the job's start and end (or the registration
of its node, if that came first: the machine was there), the node's registration and first healthy heartbeat, the
node's last word. What nobody told (an untracked receiver has no job) is
no stage, and its time is part of the next one. So the seconds of the stages add up to the wall time, to the
millisecond in which times are stored, whatever the clocks of other machines say.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from secbeat.wire.jobs import JobRecord
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.operations import ENDED, OperationRecord, OperationState, Stage, StageName

_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
ORDER: Mapping[str, tuple[StageName, ...]] = {
    "create": ("webhook", "queue", "engine", "boot", "join", "rotation"),
    "destroy": ("notice", "drain", "webhook", "queue", "teardown", "confirm"),
}
# Leaving the state on the left for the one on the right ends the stage.
_BY_STATE: Mapping[tuple[str, OperationState, OperationState], StageName] = {
    ("create", "pending", "accepted"): "webhook",
    ("create", "pending", "booting"): "webhook",
    ("destroy", "pending", "draining"): "notice",
    ("destroy", "pending", "drained"): "notice",
    ("destroy", "draining", "drained"): "drain",
    ("destroy", "drained", "tearing_down"): "webhook",
}


def advanced(op: OperationRecord, state: OperationState, now: datetime) -> tuple[Stage, ...]:
    """The stages once ``op`` is in ``state``; at its end, whatever it was doing takes the rest of the time."""
    if state in ENDED:
        return _measured(op, {_current(op): now} if state != "succeeded" else {ORDER[op.action][-1]: now}, end=now)
    ended = _BY_STATE.get((op.action, op.state, state))
    return op.stages if ended is None else _measured(op, {ended: now})


def from_job(op: OperationRecord, job: JobRecord) -> tuple[Stage, ...]:
    """The stages, with what the job's record tells."""
    told: dict[StageName, datetime] = {}
    if job.started_at is not None:
        told["queue"] = job.started_at
    if job.finished_at is not None and job.state == "succeeded":
        told["engine" if op.action == "create" else "teardown"] = job.finished_at
    return _measured(op, told)


def from_node(op: OperationRecord, node: NodeRecord) -> tuple[Stage, ...]:
    """The stages of a create, with what the node's record tells."""
    told: dict[StageName, datetime] = {}
    if node.registered_at is not None:
        told["boot"] = node.registered_at
        for stage in op.stages:
            if stage.name == "engine":
                # A playbook that waits for its node ends after it: the machine was made by then at the latest.
                told["engine"] = min(stage.ended_at, node.registered_at)
        if node.state in {"active", "warm"}:
            told["join"] = node.state_since
    return _measured(op, told)


def _current(op: OperationRecord) -> StageName:
    """The first stage behind the last one that ended."""
    order = ORDER[op.action]
    # Nobody is asked for a machine that a person starts: such an operation begins with the boot.
    begun = order.index("engine") if op.by_hand and op.action == "create" else -1
    last = max((order.index(stage.name) for stage in op.stages), default=begun)
    return order[min(last + 1, len(order) - 1)]


def _measured(
    op: OperationRecord, told: Mapping[StageName, datetime], *, end: datetime | None = None
) -> tuple[Stage, ...]:
    """All stages known, each measured from the end of the one before it; none outlasts ``end``."""
    moments = {stage.name: stage.ended_at for stage in op.stages} | dict(told)
    before = _milliseconds(op.created_at)
    limit = None if end is None else _milliseconds(end)
    found = []
    for name in ORDER[op.action]:
        if (moment := moments.get(name)) is None:
            continue
        after = max(before, _milliseconds(moment))
        if limit is not None:
            after = min(after, limit)
        found.append(Stage(name=name, ended_at=moment, seconds=(after - before) / 1000))
        before = after
    return tuple(found)


def _milliseconds(moment: datetime) -> int:
    """As stored: whole milliseconds, the rest cut off."""
    return (moment - _EPOCH) // _MILLISECOND
