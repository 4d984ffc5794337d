"""``GET /api/v1/fleet/stats`` as the original has it."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.fleet.node import Node
from secbeat.wire.nodes import WIRE_STATUS


def fleet(nodes: Iterable[Node], now: float) -> dict[str, int | float]:
    """The original's keys and percent.

    Unlike the original's, the averages and sums leave out dead nodes and stale numbers: what is unknown is not zero,
    and what is gone carries no load.
    """
    total = active = dead = loaded = connections = packets = 0
    cpu = memory = 0.0
    for node in nodes:
        status = WIRE_STATUS[node.state]
        if status is None:
            continue
        total += 1
        active += status == "Active"
        if status == "Dead":
            dead += 1
        elif node.metrics_until >= now:
            loaded += 1
            cpu += node.cpu or 0.0
            memory += node.memory or 0.0
            connections += node.connections
            if node.legacy_metrics is not None:
                packets += node.legacy_metrics.packets_per_second
    return {
        "total_nodes": total,
        "active_nodes": active,
        "dead_nodes": dead,
        "avg_cpu_usage": round(100 * cpu / loaded, 6) if loaded else 0.0,
        "avg_memory_usage": round(100 * memory / loaded, 6) if loaded else 0.0,
        "total_pps": packets,
        "total_connections": connections,
    }
