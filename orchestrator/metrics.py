"""Prometheus metrics of the orchestrator.

Three families: the guide's four names with the guide's labels only, summed over pools; the original's
``orchestrator_*`` names; and ours, per pool, under names of their own. What somebody else already counts (the node
registry, the pools, the lease) is read when the scraper asks and is not counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, UntypedMetricFamily
from prometheus_client.registry import Collector

from secbeat import __version__
from secbeat.wire.pools import PoolView

# A `_created` series beside each counter is noise to an operator, and the guide's names come with its labels only.
disable_created_metrics()  # type: ignore[no-untyped-call]  # published without annotations

_OPERATION_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800)
_ORIGINAL_COUNTERS = {
    "nodes_registered": "Registrations and joins.",
    "nodes_terminated": "Nodes told to terminate.",
    "nodes_marked_dead": "Nodes with the verdict dead.",
    "nodes_gracefully_terminated": "Nodes that left after a drain.",
    "unexpected_node_failures": "Nodes that died without having been told to.",
    "self_healing_webhooks_sent": "Webhooks that replace a dead node, accepted by the receiver.",
    "self_healing_webhook_errors": "Webhooks that replace a dead node, refused or failed.",
}


class Metrics:
    """The registry that :9091 shows, and a method for each thing that happens."""

    def __init__(self, *, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._views: dict[str, PoolView] = {}
        self._sources = _Sources(pools=lambda: list(self._views.values()))
        self._guide()
        self._original = {
            name: Counter(f"orchestrator_{name}", text, registry=self.registry)
            for name, text in _ORIGINAL_COUNTERS.items()
        }
        self._ours()
        self.registry.register(_AtScrape(self._sources))
        ProcessCollector(registry=self.registry)

    def _guide(self) -> None:
        self._scaling = Counter(
            "secbeat_scaling_decisions", "Decisions that changed a pool's size.", ["action"], registry=self.registry
        )
        self._terminations = Counter("secbeat_node_terminations", "Nodes told to terminate.", registry=self.registry)
        self._webhooks = Counter("secbeat_webhook_calls", "Webhook attempts.", ["status"], registry=self.registry)
        for action in ("scale_up", "scale_down"):
            self._scaling.labels(action=action)
        for status in ("success", "failure"):
            self._webhooks.labels(status=status)

    def _ours(self) -> None:
        self._decisions = Counter(
            "secbeat_decisions",
            "Evaluations of a pool by direction and reason.",
            ["pool", "direction", "code"],
            registry=self.registry,
        )
        self._pool_webhooks = Counter(
            "secbeat_pool_webhook_calls", "Webhook attempts, per pool.", ["pool", "status"], registry=self.registry
        )
        self._operations = Counter(
            "secbeat_operations", "Ended operations.", ["pool", "action", "state"], registry=self.registry
        )
        self._operation_seconds = Histogram(
            "secbeat_operation_seconds",
            "From the intent to the end of an operation that succeeded.",
            ["pool", "action"],
            buckets=_OPERATION_BUCKETS,
            registry=self.registry,
        )
        Info("secbeat_build", "This program.", registry=self.registry).info({"version": __version__})

    # -------------------------------------------------------------- what happens

    def scaling_decision(self, action: Literal["scale_up", "scale_down"], pool: str) -> None:  # noqa: ARG002 - per pool: `decision`
        """A decision that changed a pool's size."""
        self._scaling.labels(action=action).inc()

    def decision(self, pool: str, direction: str, code: str) -> None:
        """One evaluation, holds included."""
        self._decisions.labels(pool=pool, direction=direction, code=code).inc()

    def node_registered(self) -> None:
        """A node registered or joined."""
        self._original["nodes_registered"].inc()

    def node_terminated(self, pool: str) -> None:  # noqa: ARG002 - the guide's name has no pool; operations have one
        """A node was told to terminate."""
        self._terminations.inc()
        self._original["nodes_terminated"].inc()

    def node_left(self) -> None:
        """A node that was told to go has gone."""
        self._original["nodes_gracefully_terminated"].inc()

    def node_died(self, *, expected: bool = False) -> None:
        """A node got the verdict dead; ``expected``: it had been told to go."""
        self._original["nodes_marked_dead"].inc()
        if not expected:
            self._original["unexpected_node_failures"].inc()

    def webhook_call(self, ok: bool, pool: str, *, self_healing: bool = False) -> None:
        """One attempt to reach the receiver; ``ok``: it answered 2xx."""
        status = "success" if ok else "failure"
        self._webhooks.labels(status=status).inc()
        self._pool_webhooks.labels(pool=pool, status=status).inc()
        if self_healing:
            self._original["self_healing_webhooks_sent" if ok else "self_healing_webhook_errors"].inc()

    def operation_ended(self, pool: str, action: str, state: str, seconds: float) -> None:
        """An operation reached its end; only the successful ones enter the histogram of durations."""
        self._operations.labels(pool=pool, action=action, state=state).inc()
        if state == "succeeded":
            self._operation_seconds.labels(pool=pool, action=action).observe(seconds)

    def pool(self, view: PoolView) -> None:
        """The newest view of a pool; not needed where ``bind(pools=…)`` is used."""
        self._views[view.name] = view

    # -------------------------------------------------------------- what is read at scrape time

    def bind(
        self,
        *,
        pools: Callable[[], Sequence[PoolView]] | None = None,
        fleet: Callable[[], Mapping[str, Any]] | None = None,
        heartbeats: Callable[[], Mapping[str, int]] | None = None,
        leader: Callable[[], bool] | None = None,
        epoch: Callable[[], int] | None = None,
        nats_connected: Callable[[], bool] | None = None,
        followers: Callable[[], int] | None = None,
        blocked_ips: Callable[[], int] | None = None,
    ) -> None:
        """Where to read from when the scraper asks; may be called several times, each adds or replaces.

        Args:
            pools: the current views (``Control.pools``).
            fleet: the original's ``fleet/stats`` keys (``Registry.stats``).
            heartbeats: the registry's counters by outcome (``Registry.counters``).
            leader: whether this orchestrator holds the lease.
            epoch: the lease's epoch.
            nats_connected: whether NATS is connected.
            followers: open event streams.
            blocked_ips: entries of the blocklist.
        """
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        for name, value in given.items():
            setattr(self._sources, name, value)


@dataclass
class _Sources:
    """See :meth:`Metrics.bind`."""

    pools: Callable[[], Sequence[PoolView]]
    fleet: Callable[[], Mapping[str, Any]] = dict
    heartbeats: Callable[[], Mapping[str, int]] = dict
    leader: Callable[[], bool] | None = None
    epoch: Callable[[], int] | None = None
    nats_connected: Callable[[], bool] | None = None
    followers: Callable[[], int] | None = None
    blocked_ips: Callable[[], int] | None = None


class _AtScrape(Collector):
    """Series that are read, not counted."""

    def __init__(self, sources: _Sources) -> None:
        self._from = sources

    def describe(self) -> Iterable[Metric]:
        # Without this the registry would call collect() at registration, before anything is bound.
        return []

    def collect(self) -> Iterator[Metric]:
        views = self._from.pools()
        yield GaugeMetricFamily(
            "secbeat_fleet_size_current", "Active nodes of all pools.", value=sum(view.active for view in views)
        )
        yield from _original(self._from.fleet(), self._from.heartbeats())
        yield from _pools(views)
        for name, text, read in (
            ("secbeat_leader", "1 while this orchestrator holds the lease.", self._from.leader),
            ("secbeat_lease_epoch", "The lease's epoch, as last seen.", self._from.epoch),
            ("secbeat_nats_connected", "1 while NATS is connected.", self._from.nats_connected),
            ("secbeat_event_followers", "Open event streams.", self._from.followers),
            ("secbeat_blocked_ips", "Entries of the blocklist.", self._from.blocked_ips),
        ):
            if read is not None:
                yield GaugeMetricFamily(name, text, value=float(read()))


def _original(fleet: Mapping[str, Any], heartbeats: Mapping[str, int]) -> Iterator[Metric]:
    yield GaugeMetricFamily("orchestrator_total_nodes", "Nodes known.", value=float(fleet.get("total_nodes", 0)))
    yield GaugeMetricFamily("orchestrator_active_nodes", "Nodes active.", value=float(fleet.get("active_nodes", 0)))
    yield CounterMetricFamily(
        "orchestrator_heartbeats_received", "Heartbeats, NATS and HTTP.", value=heartbeats.get("received", 0)
    )
    # The original's name lacks `_total`, which the client library would append to a counter.
    yield UntypedMetricFamily(
        "orchestrator_heartbeats_unknown_node", "Heartbeats of unknown nodes.", value=heartbeats.get("unknown", 0)
    )
    outcomes = CounterMetricFamily("secbeat_heartbeats", "Heartbeats by outcome.", labels=["outcome"])
    for outcome, count in heartbeats.items():
        outcomes.add_metric([outcome], count)
    yield outcomes


def _pools(views: Sequence[PoolView]) -> Iterator[Metric]:
    nodes = GaugeMetricFamily("secbeat_pool_nodes", "Nodes of a pool by state.", labels=["pool", "state"])
    limits = GaugeMetricFamily("secbeat_pool_limit_nodes", "min and max of a pool.", labels=["pool", "limit"])
    paused = GaugeMetricFamily(
        "secbeat_pool_paused", "1 while growth (out) or shrinking (in) is paused.", labels=["pool", "direction"]
    )
    for view in views:
        for state in ("active", "pending", "draining", "failed"):
            nodes.add_metric([view.name, state], getattr(view, state))
        for limit in ("min", "max"):
            limits.add_metric([view.name, limit], getattr(view, limit))
        held = view.pause.direction if view.pause else None
        for direction in ("in", "out"):
            paused.add_metric([view.name, direction], float(held in {direction, "both"}))
    yield from (nodes, limits, paused)
    for name, text, read in _POOL_GAUGES:
        family = GaugeMetricFamily(name, text, labels=["pool"])
        for view in views:
            if (value := read(view)) is not None:
                family.add_metric([view.name], float(value))
        yield family


_POOL_GAUGES: tuple[tuple[str, str, Callable[[PoolView], float | None]], ...] = (
    ("secbeat_pool_desired_nodes", "The size that the last decision wants.", lambda view: view.desired),
    ("secbeat_pool_cpu_ratio", "Mean CPU of the fresh nodes, 0 to 1.", lambda view: view.cpu),
    ("secbeat_pool_open_operations", "Operations that have not ended.", lambda view: view.open_operations),
    ("secbeat_pool_breaker_open", "1 while creations are stopped after failed boots.",
     lambda view: view.breaker.open_since is not None),
    ("secbeat_pool_frozen", "1 while mass silence freezes the pool.", lambda view: view.frozen_since is not None),
    ("secbeat_pool_override", "1 while a manual size is in force.", lambda view: view.override is not None),
)  # fmt: skip
