"""Pools: what operators change (``pool.<name>``) and what the API shows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from secbeat.wire.base import Count, Moment, OpId, PoolName, Record, Text, Wire
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.webhook import Reason

PauseDirection = Literal["in", "out", "both"]


class Pause(Wire):
    """A pause: growth (out), shrinking (in) or both are held until it ends."""

    direction: PauseDirection = "both"
    until: Moment | None = Field(None, description="None: until 'resume'.")
    by: str = Field("", max_length=128)
    reason: str = Field("", max_length=500)
    since: Moment


class Override(Wire):
    """A manual size; the loop keeps the pool at it until it ends."""

    size: Count
    until: Moment | None = None
    by: str = Field("", max_length=128)
    since: Moment


class Breaker(Wire):
    """Boots in a row that never joined: the next one waits for ``retry_at``; open, and it is a single probe."""

    failures: Count = 0
    open_since: Moment | None = None
    retry_at: Moment | None = None
    last_error: str = Field("", max_length=500)
    last_code: str = Field("", max_length=64)
    last_op_id: OpId | None = None


class PoolRecord(Record):
    """``pool.<name>``: what outlives a restart of the orchestrator."""

    name: PoolName
    pause: Pause | None = None
    override: Override | None = None
    retired: bool = Field(False, description="'up' stops: the pool goes to zero, and stays there until 'resume'.")
    frozen_since: Moment | None = Field(None, description="Mass silence: nothing is destroyed until it ends.")
    breaker: Breaker = Breaker()
    last_up_at: Moment | None = None
    last_down_at: Moment | None = None
    vanished: bool = Field(False, description="No longer in the file: paused, never emptied.")


class PoolView(Wire):
    """``GET /api/v1/pools/{name}``."""

    name: PoolName
    revision: Count = Field(
        description="Changes with every change of the pool's record; for --if-revision and If-Match."
    )
    mode: Literal["active", "observe"]
    owner: Literal["file", "api"] = "file"
    min: Count
    max: Count
    capacity: Count
    active: Count
    pending: Count
    draining: Count
    failed: Count
    desired: Count
    cpu: float | None
    blueprint: str
    policy: dict[str, Any]
    pause: Pause | None = None
    override: Override | None = None
    retired: bool = False
    frozen_since: Moment | None = None
    breaker: Breaker = Breaker()
    open_operations: Count = 0
    decision: DecisionRecord | None = None


class ScaleRequest(Wire):
    """``POST /api/v1/pools/{name}/scale``."""

    size: int = Field(ge=0, le=100_000)
    for_seconds: float | None = Field(None, gt=0, le=86400 * 365)
    if_revision: Count | None = None


class PauseRequest(Wire):
    """``POST /api/v1/pools/{name}/pause``."""

    direction: PauseDirection = "both"
    for_seconds: float | None = Field(None, gt=0, le=86400 * 365)
    reason: str = Field("", max_length=500)
    if_revision: Count | None = None


class ResumeRequest(Wire):
    """``POST /api/v1/pools/{name}/resume``: ends pause, override, retirement and a freeze."""

    if_revision: Count | None = None


class NewNodeRequest(Wire):
    """``POST /api/v1/pools/{name}/nodes``: a node that a person will start by hand; answers with its join file."""

    reason: str = Field("", max_length=500)


class Trouble(Wire):
    """An operation that failed or cannot go on, and why."""

    op_id: OpId
    code: Reason
    message: Text
    task: str | None = None


class PoolWhy(Wire):
    """``GET /api/v1/pools/{name}/why``: the sentence, then the decision in force (or, with ``at``, in force then)."""

    name: PoolName
    sentence: str
    code: Reason | None = Field(None, description="The cause: of the decision, of the trouble behind it, or observing.")
    fix: str | None = Field(None, description="What changes it: a command to paste, or the setting and how to reload.")
    trouble: Trouble | None = None
    decision: DecisionRecord | None
