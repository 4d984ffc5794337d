"""Prometheus metrics of the orchestrator: what is counted here as it happens.

Names, labels and texts stand in the catalogue (``secbeat.telemetry.catalogue``). What somebody else already counts or
knows (the node registry, the pools, the lease) is read when the scraper asks, see ``orchestrator.scraping``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from prometheus_client import CollectorRegistry, ProcessCollector

from orchestrator.scraping import AtScrape, Sources
from secbeat import __version__
from secbeat.telemetry.context import exemplar
from secbeat.telemetry.families import Families
from secbeat.wire.operations import OperationRecord
from secbeat.wire.pools import PoolView

_ORIGINAL = (
    "nodes_registered",
    "nodes_terminated",
    "nodes_marked_dead",
    "nodes_gracefully_terminated",
    "unexpected_node_failures",
    "self_healing_webhooks_sent",
    "self_healing_webhook_errors",
)


class Metrics:
    """The registry that :9091 shows, and a method for each thing that happens. ``now``: Unix time."""

    def __init__(self, *, registry: CollectorRegistry | None = None, now: Callable[[], float] = time.time) -> None:
        families = Families("orchestrator", registry)
        self.registry = families.registry
        self._now = now
        self._views: dict[str, PoolView] = {}
        self._sources = Sources(pools=lambda: list(self._views.values()), now=now)
        self._scaling = families.counter("secbeat_scaling_decisions_total")
        self._terminations = families.counter("secbeat_node_terminations_total")
        self._webhooks = families.counter("secbeat_webhook_calls_total")
        self._original = {name: families.counter(f"orchestrator_{name}_total") for name in _ORIGINAL}
        self._decisions = families.counter("secbeat_decisions_total")
        self._pool_webhooks = families.counter("secbeat_pool_webhook_calls_total")
        self._operations = families.counter("secbeat_operations_total")
        self._operation_seconds = families.histogram("secbeat_operation_seconds")
        self._stages = {
            "create": families.histogram("secbeat_scale_up_stage_seconds"),
            "destroy": families.histogram("secbeat_scale_down_stage_seconds"),
        }
        self._store_errors = families.counter("secbeat_store_errors_total")
        families.info("secbeat_build_info", version=__version__)
        self._zero()
        self.registry.register(AtScrape(families, self._sources))
        ProcessCollector(registry=self.registry)

    def _zero(self) -> None:
        """Series whose labels are known exist from the start: a rate over a series that appears with 1 misses it."""
        for action in ("scale_up", "scale_down"):
            self._scaling.labels(action=action)
        for status in ("success", "failure"):
            self._webhooks.labels(status=status)
        for store in ("state", "ledger"):
            self._store_errors.labels(store=store)

    # -------------------------------------------------------------- what happens

    def scaling_decision(self, action: Literal["scale_up", "scale_down"], pool: str) -> None:  # noqa: ARG002 - per pool: `decision`
        """A decision that changed a pool's size."""
        self._scaling.labels(action=action).inc()

    def decision(self, pool: str, direction: str, code: str) -> None:
        """One evaluation, holds included."""
        self._decisions.labels(pool=pool, direction=direction, code=code).inc()
        self._sources.decided[pool] = self._now()

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
        self._sources.webhook_failures = 0 if ok else self._sources.webhook_failures + 1
        if ok:
            self._sources.webhook_success = self._now()
        if self_healing:
            self._original["self_healing_webhooks_sent" if ok else "self_healing_webhook_errors"].inc()

    def job_accepted(self, there: datetime, here: datetime) -> None:
        """The same moment by the provisioner's clock and by ours: a job's creation, and the answer that told of it."""
        self._sources.receiver_skew = (there - here).total_seconds()

    def operation_ended(self, op: OperationRecord) -> None:
        """An operation reached its end; only the successful ones enter the histograms of durations."""
        self._operations.labels(pool=op.pool, action=op.action, state=op.state).inc()
        if op.state != "succeeded":
            return
        trace = exemplar(op.traceparent)
        for stage in op.stages:
            self._stages[op.action].labels(pool=op.pool, stage=stage.name).observe(stage.seconds, trace)
        seconds = sum(stage.seconds for stage in op.stages)
        self._operation_seconds.labels(pool=op.pool, action=op.action).observe(seconds, trace)

    def store_error(self, store: Literal["state", "ledger"]) -> None:
        """A write that was not confirmed."""
        self._store_errors.labels(store=store).inc()

    def pool(self, view: PoolView) -> None:
        """The newest view of a pool; not needed where ``bind(pools=…)`` is used."""
        self._views[view.name] = view

    # -------------------------------------------------------------- what is read at scrape time

    def bind(
        self,
        *,
        pools: Callable[[], Sequence[PoolView]] | None = None,
        operations: Callable[[], Sequence[OperationRecord]] | None = None,
        fleet: Callable[[], Mapping[str, Any]] | None = None,
        heartbeats: Callable[[], Mapping[str, int]] | None = None,
        leader: Callable[[], bool] | None = None,
        epoch: Callable[[], int] | None = None,
        nats_connected: Callable[[], bool] | None = None,
        nats_errors: Callable[[], Mapping[str, int]] | None = None,
        streams: Callable[[], Mapping[str, tuple[int, int]]] | None = None,
        ledger: Callable[[], tuple[int, int]] | None = None,
        followers: Callable[[], int] | None = None,
        blocked_ips: Callable[[], int] | None = None,
        certificate: Callable[[], float | None] | None = None,
    ) -> None:
        """Where to read from when the scraper asks; may be called several times, each adds or replaces.

        Args:
            pools: the current views (``Control.pools``).
            operations: those that have not ended; none while another orchestrator leads.
            fleet: the original's ``fleet/stats`` keys (``Registry.stats``).
            heartbeats: the registry's counters by outcome (``Registry.counters``).
            leader: whether this orchestrator holds the lease.
            epoch: the lease's epoch.
            nats_connected: whether NATS is connected.
            nats_errors: asynchronous errors by kind (``Bus.errors``).
            streams: bytes and limit by stream.
            ledger: decisions that wait for the ledger, and those that it never got.
            followers: open event streams.
            blocked_ips: entries of the blocklist.
            certificate: end of the API's certificate, Unix time; None without one.
        """
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        for name, value in given.items():
            setattr(self._sources, name, value)
