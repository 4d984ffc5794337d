"""Heartbeats: ours on NATS (fractions), the original's over HTTP (percent).

The hot path decodes :class:`HeartbeatFrame` with msgspec; :class:`Heartbeat` is the same shape in pydantic, for
documentation and for the field-by-field salvage of a frame with one bad field. A test holds the two together.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from pydantic import Field

from secbeat.wire.base import VERSION, Count, Fraction, Moment, NodeId, PoolName, Record, Wire

NodeStatus = Literal["Registered", "Active", "Draining", "Terminating", "Dead", "Starting"]

# ---------------------------------------------------------------- hot path

_Uuid = Annotated[str, Meta(min_length=36, max_length=36)]
_Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
_Rate = Annotated[float, Meta(ge=0.0, le=1e12)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Short = Annotated[str, Meta(max_length=64)]


class LatencyFrame(msgspec.Struct, frozen=True, gc=False):
    """Milliseconds."""

    p50: _Rate = 0.0
    p95: _Rate = 0.0
    p99: _Rate = 0.0


class MetricsFrame(msgspec.Struct, frozen=True, gc=False):
    """One node's load since its last heartbeat. Fractions 0 to 1, rates per second."""

    cpu: _Fraction
    memory: _Fraction
    connections: _Count
    in_flight: _Count = 0
    rps: _Rate = 0.0
    errors_per_second: _Rate = 0.0
    latency_ms: LatencyFrame | None = None


class HeartbeatFrame(msgspec.Struct, frozen=True, gc=False):
    """``secbeat.hb.<node_id>``. (boot_id, seq) strictly increases; ``sent_at`` is for display only."""

    node_id: _Uuid
    boot_id: _Uuid
    seq: _Count
    sent_at: _Short
    status: NodeStatus
    pool: _Short
    metrics: MetricsFrame
    v: int = VERSION
    blocklist_version: _Count = 0
    agent_version: _Short = ""


decode_frame = msgspec.json.Decoder(HeartbeatFrame).decode
encode_frame = msgspec.json.Encoder().encode


# ---------------------------------------------------------------- the same in pydantic


class Latency(Wire):
    """Milliseconds."""

    p50: float = Field(0.0, ge=0, le=1e12)
    p95: float = Field(0.0, ge=0, le=1e12)
    p99: float = Field(0.0, ge=0, le=1e12)


class Metrics(Wire):
    """See :class:`MetricsFrame`."""

    cpu: Fraction
    memory: Fraction
    connections: Count
    in_flight: Count = 0
    rps: float = Field(0.0, ge=0, le=1e12)
    errors_per_second: float = Field(0.0, ge=0, le=1e12)
    latency_ms: Latency | None = None


class Heartbeat(Record):
    """See :class:`HeartbeatFrame`."""

    node_id: NodeId
    boot_id: NodeId
    seq: Count
    sent_at: Moment
    status: NodeStatus
    pool: PoolName
    metrics: Metrics
    blocklist_version: Count = 0
    agent_version: str = Field("", max_length=64)


# ---------------------------------------------------------------- the original's, over HTTP


class LegacyMetrics(Wire):
    """The original's seven numbers; cpu and memory in percent."""

    cpu_usage: float
    memory_usage: float
    packets_per_second: Count
    active_connections: Count
    total_requests: Count
    ddos_blocks: Count
    waf_blocks: Count


class LegacyHeartbeat(Wire):
    """``POST /api/v1/nodes/heartbeat``."""

    node_id: NodeId
    metrics: LegacyMetrics
    status: NodeStatus
