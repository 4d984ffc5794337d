"""The webhook: the guide's body, the original's two others, and ours, which adds ``operation``."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal

from pydantic import Field

from secbeat.wire.base import Count, Fraction, Moment, NodeId, OpId, PoolName, Record, Wire

Action = Literal["create", "destroy"]
Reason = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


class FleetMetrics(Wire):
    """The guide's four numbers, of the pool; fractions."""

    active_nodes: Count
    avg_cpu_usage: Fraction
    avg_memory_usage: Fraction
    total_connections: Count


class Operation(Record):
    """Our part of a webhook."""

    cluster_id: NodeId
    op_id: OpId
    action: Action
    pool: PoolName
    node_id: NodeId
    epoch: int = Field(ge=0)
    blueprint: str = Field(
        "default", pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="Name from the receiver's registry."
    )
    issued_at: Moment
    deadline: Moment
    callback_url: str | None = Field(None, max_length=2000)
    traceparent: str | None = Field(None, max_length=55, description="W3C trace context; the header says the same.")


class WebhookBody(Wire):
    """What we send. ``failed_node_*`` replaces ``fleet_metrics`` for self-healing, as in the original."""

    reason: Reason
    timestamp: Moment
    fleet_metrics: FleetMetrics | None = None
    failed_node_id: NodeId | None = None
    failed_node_ip: IPv4Address | IPv6Address | None = None
    operation: Operation


class UnsignedFleetMetrics(Wire):
    """As the original sends it: percent or fraction, f32 digits."""

    active_nodes: Count
    avg_cpu_usage: float
    avg_memory_usage: float
    total_connections: Count


class UnsignedBody(Wire):
    """What an original orchestrator (or ``curl``, by the guide) sends: no operation."""

    reason: Reason
    timestamp: Moment
    fleet_metrics: UnsignedFleetMetrics | None = None
    prediction_info: dict[str, Any] | None = None
    failed_node_id: NodeId | None = None
    failed_node_ip: IPv4Address | IPv6Address | None = None


class WebhookAnswer(Wire):
    """202 accepted, 200 already known (``job`` is its stored record)."""

    status: Literal["accepted", "known"]
    op_id: OpId
    node_id: NodeId
    job: dict[str, Any] | None = None
