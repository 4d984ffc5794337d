"""Reads a heartbeat with something wrong in it field by field: one bad number must not silence a node.

Slow, and only for frames that the strict decoder refused. ``NaN`` and infinities, which Python's own encoder writes
although JSON has none, are read here so that they can be told from garbage; they are never applied.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, get_args

from orchestrator.fleet.node import Node
from secbeat import ids
from secbeat.wire.base import VERSION
from secbeat.wire.heartbeat import NodeStatus

_LONGEST = 64 * 1024  # bytes; a heartbeat has some 300
_STATUSES: frozenset[str] = frozenset(get_args(NodeStatus))


class Salvaged(NamedTuple):
    """What is sound: ``None`` where a field was missing or wrong."""

    node_id: str
    boot_id: str | None
    seq: int | None
    status: NodeStatus | None
    cpu: float | None
    memory: float | None
    connections: int | None
    in_flight: int | None
    rps: float | None
    errors_per_second: float | None

    def apply(self, node: Node) -> bool:
        """Set the sound metrics; True if they make the node's load fresh: cpu and connections were among them."""
        for name in ("cpu", "memory", "connections", "in_flight", "rps", "errors_per_second"):
            if (value := getattr(self, name)) is not None:
                setattr(node, name, value)
        return self.cpu is not None and self.connections is not None


def read(payload: bytes) -> Salvaged | None:
    """The sound fields; None if this is no heartbeat at all (no JSON object, no valid ``node_id``, a newer version)."""
    if len(payload) > _LONGEST:
        return None
    try:
        frame = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(frame, dict):
        return None
    node_id, version = _uuid(frame.get("node_id")), frame.get("v", VERSION)
    if node_id is None or _count(version) is None or version > VERSION:
        return None
    metrics = frame.get("metrics")
    if not isinstance(metrics, dict):
        metrics = {}
    status = frame.get("status")
    return Salvaged(
        node_id=node_id,
        boot_id=_uuid(frame.get("boot_id")),
        seq=_count(frame.get("seq")),
        status=status if isinstance(status, str) and status in _STATUSES else None,  # type: ignore[arg-type]  # checked
        cpu=fraction(metrics.get("cpu")),
        memory=fraction(metrics.get("memory")),
        connections=_count(metrics.get("connections")),
        in_flight=_count(metrics.get("in_flight")),
        rps=_rate(metrics.get("rps")),
        errors_per_second=_rate(metrics.get("errors_per_second")),
    )


def fraction(value: Any) -> float | None:
    """``value`` if it is a finite number from 0 to 1, else None."""
    return _number(value, 1.0)


def _rate(value: Any) -> float | None:
    return _number(value, 1e12)


def _number(value: Any, most: float) -> float | None:
    # NaN fails the comparison as well.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        return None
    return float(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53 else None


def _uuid(value: Any) -> str | None:
    try:
        return ids.check_uuid(value) if isinstance(value, str) else None
    except ValueError:
        return None
