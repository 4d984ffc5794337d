"""A node's management API and the NATS commands of the same names."""

from __future__ import annotations

from pydantic import Field

from secbeat.wire.base import NodeId, Wire


class TerminateRequest(Wire):
    """``POST /control/terminate``: the original's three, then what guards a node that has its own token."""

    reason: str = Field(max_length=500)
    timestamp: str = Field(max_length=64)
    grace_period_seconds: int = Field(ge=0, le=2**31)
    node_id: NodeId | None = None
    boot_id: NodeId | None = None
    epoch: int | None = Field(None, ge=0)


class TerminateResponse(Wire):
    """202, byte for byte the guide's body."""

    success: bool
    message: str
    grace_period_seconds: int


class ResumeRequest(Wire):
    """``POST /control/resume``: cancel a drain."""

    reason: str = Field("", max_length=500)
    node_id: NodeId | None = None
    boot_id: NodeId | None = None
    epoch: int | None = Field(None, ge=0)


class ResumeResponse(Wire):
    """200 while the listener is open, 409 afterwards."""

    success: bool
    message: str
