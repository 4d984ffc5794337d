"""Metrics of the orchestrator that are read when the scraper asks, from whoever knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from secbeat.telemetry.families import Families
from secbeat.wire.operations import OperationRecord
from secbeat.wire.pools import PoolView

Labelled = dict[tuple[str, ...], float]


@dataclass
class Sources:
    """See ``orchestrator.metrics.Metrics.bind``; the last four are kept by ``Metrics`` itself."""

    pools: Callable[[], Sequence[PoolView]]
    now: Callable[[], float]
    operations: Callable[[], Sequence[OperationRecord]] = tuple
    fleet: Callable[[], Mapping[str, Any]] = dict
    heartbeats: Callable[[], Mapping[str, int]] = dict
    leader: Callable[[], bool] | None = None
    epoch: Callable[[], int] | None = None
    nats_connected: Callable[[], bool] | None = None
    nats_errors: Callable[[], Mapping[str, int]] = dict
    streams: Callable[[], Mapping[str, tuple[int, int]]] = dict
    ledger: Callable[[], tuple[int, int]] = lambda: (0, 0)
    followers: Callable[[], int] | None = None
    blocked_ips: Callable[[], int] | None = None
    certificate: Callable[[], float | None] = lambda: None
    decided: dict[str, float] = field(default_factory=dict)
    webhook_failures: int = 0
    webhook_success: float = 0.0
    receiver_skew: float | None = None


class AtScrape(Collector):
    """Series that are read, not counted."""

    def __init__(self, families: Families, sources: Sources) -> None:
        self._families, self._from = families, sources

    def describe(self) -> Iterable[Metric]:
        # Without this the registry would call collect() at registration, before anything is bound.
        return []

    def collect(self) -> Iterator[Metric]:
        views = self._from.pools()
        yield self._families.gauge("secbeat_fleet_size_current", sum(view.active for view in views))
        yield from self._original()
        yield from self._pools(views)
        yield from self._decisions(views)
        yield from self._operations()
        yield from self._receiver()
        yield from self._surroundings()

    # -------------------------------------------------------------- the fleet

    def _original(self) -> Iterator[Metric]:
        make, fleet, heartbeats = self._families, self._from.fleet(), self._from.heartbeats()
        yield make.gauge("orchestrator_total_nodes", float(fleet.get("total_nodes", 0)))
        yield make.gauge("orchestrator_active_nodes", float(fleet.get("active_nodes", 0)))
        yield make.count("orchestrator_heartbeats_received_total", heartbeats.get("received", 0))
        yield make.untyped("orchestrator_heartbeats_unknown_node", heartbeats.get("unknown", 0))
        yield make.count("secbeat_heartbeats_total", {(outcome,): count for outcome, count in heartbeats.items()})

    def _pools(self, views: Sequence[PoolView]) -> Iterator[Metric]:
        make = self._families
        nodes: Labelled = {}
        limits: Labelled = {}
        paused: Labelled = {}
        for view in views:
            for state in ("active", "pending", "draining", "failed"):
                nodes[view.name, state] = getattr(view, state)
            for limit in ("min", "max"):
                limits[view.name, limit] = getattr(view, limit)
            held = view.pause.direction if view.pause else None
            for direction in ("in", "out"):
                paused[view.name, direction] = float(held in {direction, "both"})
        yield make.gauge("secbeat_pool_nodes", nodes)
        yield make.gauge("secbeat_pool_limit_nodes", limits)
        yield make.gauge("secbeat_pool_paused", paused)
        for name, read in _POOL_GAUGES:
            found: Labelled = {}
            for view in views:
                if (value := read(view)) is not None:
                    found[(view.name,)] = value
            yield make.gauge(name, found)
        ages: Labelled = {(view.name,): self._from.now() - view.pause.since.timestamp() for view in views if view.pause}
        yield make.gauge("secbeat_pool_pause_age_seconds", {labels: max(age, 0.0) for labels, age in ages.items()})

    def _decisions(self, views: Sequence[PoolView]) -> Iterator[Metric]:
        known = {view.name for view in views}
        decided: Labelled = {(pool,): at for pool, at in self._from.decided.items() if pool in known}
        yield self._families.gauge("secbeat_pool_last_decision_timestamp_seconds", decided)

    # -------------------------------------------------------------- what is under way

    def _operations(self) -> Iterator[Metric]:
        counts: Labelled = {}
        oldest: Labelled = {}
        now = self._from.now()
        for op in self._from.operations():
            labels = (op.pool, op.action, op.state)
            counts[labels] = counts.get(labels, 0) + 1
            oldest[labels] = max(oldest.get(labels, 0.0), now - op.created_at.timestamp())
        yield self._families.gauge("secbeat_open_operations", counts)
        yield self._families.gauge("secbeat_open_operation_age_seconds", oldest)

    def _receiver(self) -> Iterator[Metric]:
        make = self._families
        yield make.gauge("secbeat_webhook_last_success_timestamp_seconds", self._from.webhook_success)
        yield make.gauge("secbeat_webhook_consecutive_failures", self._from.webhook_failures)
        yield make.gauge("secbeat_receiver_clock_skew_seconds", self._from.receiver_skew)

    # -------------------------------------------------------------- what it stands on

    def _surroundings(self) -> Iterator[Metric]:
        make = self._families
        for name, read in (
            ("secbeat_leader", self._from.leader),
            ("secbeat_lease_epoch", self._from.epoch),
            ("secbeat_nats_connected", self._from.nats_connected),
            ("secbeat_event_followers", self._from.followers),
            ("secbeat_blocked_ips", self._from.blocked_ips),
        ):
            yield make.gauge(name, None if read is None else float(read()))
        yield make.count("secbeat_nats_errors_total", {(kind,): n for kind, n in self._from.nats_errors().items()})
        streams = self._from.streams()
        yield make.gauge("secbeat_stream_bytes", {(name,): used for name, (used, _) in streams.items()})
        yield make.gauge("secbeat_stream_limit_bytes", {(name,): limit for name, (_, limit) in streams.items()})
        waiting, lost = self._from.ledger()
        yield make.gauge("secbeat_ledger_waiting_decisions", waiting)
        yield make.count("secbeat_ledger_lost_decisions_total", lost)
        ends = self._from.certificate()
        yield make.gauge("secbeat_certificate_expiry_timestamp_seconds", {} if ends is None else {("api",): ends})


def _seen(view: PoolView, name: str) -> float | None:
    return None if view.decision is None else float(getattr(view.decision.snapshot, name))


_POOL_GAUGES: tuple[tuple[str, Callable[[PoolView], float | None]], ...] = (
    ("secbeat_pool_desired_nodes", lambda view: view.desired),
    ("secbeat_pool_cpu_ratio", lambda view: view.cpu),
    ("secbeat_pool_fresh_nodes", lambda view: _seen(view, "fresh")),
    ("secbeat_pool_silent_nodes", lambda view: _seen(view, "silent")),
    ("secbeat_pool_breaker_open", lambda view: view.breaker.open_since is not None),
    ("secbeat_pool_breaker_failures", lambda view: view.breaker.failures),
    ("secbeat_pool_frozen", lambda view: view.frozen_since is not None),
    ("secbeat_pool_override", lambda view: view.override is not None),
    ("secbeat_pool_check_interval_seconds", lambda view: view.policy.get("scaling_check_interval_seconds")),
    ("secbeat_pool_drain_deadline_seconds", lambda view: view.policy.get("drain_deadline_seconds")),
)
