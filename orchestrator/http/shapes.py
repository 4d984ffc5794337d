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


class OriginalHealth(Wire):
    """``GET /api/v1/health``."""

    status: Literal["healthy"]
    timestamp: str
    version: str
