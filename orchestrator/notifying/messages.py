"""What a receiver of notifications gets: the payload that Standard Webhooks recommends, and a stable id."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

from orchestrator.notifying.conditions import Condition
from secbeat.settings import NotificationKind
from secbeat.wire.base import Moment, Wire

Phase = Literal["began", "ended", "happened"]


class Details(Wire):
    """``data`` of a notification."""

    cluster_id: str
    kind: NotificationKind
    phase: Phase
    pool: str | None
    code: str
    sentence: str
    since: Moment
    node_id: str | None = None
    op_id: str | None = None


class Notification(Wire):
    """The body; ``type`` is ``<kind>.<phase>``."""

    type: str
    timestamp: Moment
    data: Details


def about_condition(
    kind: NotificationKind, phase: Phase, condition: Condition, *, pool: str, cluster_id: str, now: datetime
) -> Notification:
    """A state that began or ended."""
    details = Details(
        cluster_id=cluster_id,
        kind=kind,
        phase=phase,
        pool=pool,
        code=condition.code,
        sentence=condition.sentence if phase == "began" else f"over: {condition.sentence}",
        since=condition.since,
    )
    return Notification(type=f"{kind}.{phase}", timestamp=now, data=details)


def message_id(notification: Notification) -> str:
    """The ``webhook-id``: the same for the same matter, also after a restart: a receiver can drop repetitions."""
    data = notification.data
    parts = (data.cluster_id, data.kind, data.phase, data.pool, data.op_id, data.since.isoformat())
    return "msg_" + hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]
