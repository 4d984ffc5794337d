"""The original's read-only answers as models: what the OpenAPI document says of them, and a test holds them to."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from secbeat.wire.base import Count, Wire


class FleetStats(Wire):
    """``GET /api/v1/fleet/stats``: the original's keys (percent), and each pool's scaling."""

    total_nodes: Count
    active_nodes: Count
    dead_nodes: Count
    avg_cpu_usage: float = Field(ge=0)
    avg_memory_usage: float = Field(ge=0)
    total_pps: Count
    total_connections: Count
    scaling: dict[str, Any] = Field(description="pools: by name, policy, counters and last decision")


class DashboardSummary(Wire):
    """``GET /api/v1/dashboard/summary``."""

    total_requests: Count
    blocked_requests: Count
    active_nodes: Count
    cluster_health: Literal["healthy", "degraded", "critical"]
    requests_per_minute: Count
    total_pps: Count
    block_rate: float = Field(ge=0, le=100, description="Percent.")
    timestamp: str


class StreamedEvent(Wire):
    """One event of ``GET /api/v1/events`` as a reader of Server-Sent Events has it."""

    id: str = Field("", description="The event's seq; send it as Last-Event-ID to go on behind it.")
    event: str = Field("message", description="`gap`: events before the next one are no longer kept.")
    data: str = Field(description="An Event as JSON; of a gap, the oldest seq that is kept.")


class OriginalHealth(Wire):
    """``GET /api/v1/health``."""

    status: Literal["healthy"]
    timestamp: str
    version: str
