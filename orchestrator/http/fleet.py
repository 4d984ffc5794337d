"""The fleet in numbers: the original's ``fleet/stats`` with our ``scaling``, its dashboard summary, its health."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from orchestrator.fleet import Node
from orchestrator.http.context import Context
from orchestrator.http.shapes import DashboardSummary, FleetStats, OriginalHealth
from secbeat import __version__
from secbeat.api import Route, reply
from secbeat.clock import wire_time
from secbeat.wire.pools import PoolView


class Fleet:
    """Handlers of the original's read-only routes."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def stats(self, _request: web.Request) -> web.Response:
        pools = {view.name: _scaling(view) for view in self._context.control.pools()}
        return reply({**self._context.registry.stats(), "scaling": {"pools": pools}})

    async def summary(self, _request: web.Request) -> web.Response:
        stats = self._context.registry.stats()
        served, blocked, rps = _traffic(self._context.registry.nodes())
        return reply(
            {
                "total_requests": served,
                "blocked_requests": blocked,
                "active_nodes": stats["active_nodes"],
                "cluster_health": _health(int(stats["active_nodes"]), int(stats["total_nodes"])),
                "requests_per_minute": round(rps * 60),
                "total_pps": stats["total_pps"],
                "block_rate": min(100.0, 100.0 * blocked / served) if served else 0.0,
                "timestamp": wire_time(self._context.clock.now()),
            }
        )

    async def health(self, _request: web.Request) -> web.Response:
        return reply({"status": "healthy", "timestamp": wire_time(self._context.clock.now()), "version": __version__})


def _health(active: int, total: int) -> str:
    """The original's three words and its integer division."""
    if active == 0:
        return "critical"
    return "degraded" if active < total // 2 else "healthy"


def _traffic(nodes: Iterable[Node]) -> tuple[int, int, float]:
    """Requests served, requests blocked, requests per second; ours report rates, the original's counters."""
    served = blocked = 0
    rps = 0.0
    for node in nodes:
        rps += node.rps
        if (counters := node.legacy_metrics) is not None:
            served += counters.total_requests
            # The original's node counts what its WAF blocks in both.
            blocked += max(counters.ddos_blocks, counters.waf_blocks)
        else:
            served += int(node.requests)
    return served, blocked, rps


def _scaling(view: PoolView) -> dict[str, Any]:
    decision = view.decision
    shown: dict[str, Any] = {
        "mode": view.mode,
        "min": view.min,
        "max": view.max,
        "capacity": view.capacity,
        "pending": view.pending,
        "desired": view.desired,
        "cpu": view.cpu,
        "policy": view.policy,
        "paused": view.pause.direction if view.pause else None,
        "breaker_open": view.breaker.open_since is not None,
        "open_operations": view.open_operations,
        "up_checks": decision.up_checks if decision else 0,
        "down_checks": decision.down_checks if decision else 0,
        "decision": None,
    }
    if decision is not None:
        shown["decision"] = decision.model_dump(
            mode="json", include={"at", "direction", "size", "code", "sentence", "victim", "would"}
        )
    return shown


def routes(context: Context) -> list[Route]:
    """The routes of this module."""
    fleet = Fleet(context)
    return [
        Route(method="GET", path="/api/v1/fleet/stats", handler=fleet.stats, scope="read", loopback_open=True,
              legacy=True, response=FleetStats, summary="The original's numbers (percent), and each pool's scaling"),
        Route(method="GET", path="/api/v1/dashboard/summary", handler=fleet.summary, scope="read",
              loopback_open=True, legacy=True, response=DashboardSummary, summary="The original's dashboard numbers"),
        Route(method="GET", path="/api/v1/health", handler=fleet.health, scope="read", loopback_open=True,
              legacy=True, response=OriginalHealth, summary="The original's health; /readyz tells more"),
    ]  # fmt: skip
