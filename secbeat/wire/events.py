"""Events and audit records: what changed, who asked."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from secbeat.wire.base import Count, Moment, Record


class Event(Record):
    """One entry of ``GET /api/v1/events`` and of subject ``secbeat.ev.<kind>``."""

    seq: Count = 0
    at: Moment
    kind: str = Field(pattern=r"^[a-z][a-z_]*(\.[a-z][a-z_]*)*$", description="node.joined, operation.succeeded, …")
    sentence: str = Field(max_length=2000)
    pool: str | None = None
    node_id: str | None = None
    op_id: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class AuditEvent(Record):
    """One change of state that somebody asked for, done or refused."""

    event_id: str = Field("", max_length=32, description="A ULID: sorts by time.")
    at: Moment
    service: str = Field("orchestrator", max_length=32)
    who: str = Field(max_length=128)
    scope: str = Field(max_length=16)
    peer: str = Field("", max_length=64)
    what: str = Field(max_length=500, description="Method and path, or the command's subject.")
    status: int = Field(description="The result as an HTTP status: below 400 it was done, from there on refused.")
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
