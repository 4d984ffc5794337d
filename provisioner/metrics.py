"""The provisioner's Prometheus series; names, labels and texts stand in the catalogue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from aiohttp import web
from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from provisioner.limits import Limits
from secbeat import __version__
from secbeat.telemetry.context import exemplar
from secbeat.telemetry.families import Families
from secbeat.wire.jobs import JobRecord

Labelled = dict[tuple[str, ...], float]


class Metrics:
    """A registry of its own, so that two services in one process do not meet. ``now``: Unix time."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._families = Families("provisioner")
        self.registry = self._families.registry
        self._now = now
        self._live = _Live(self._families)
        self._webhooks = self._families.counter("secbeat_provisioner_webhooks_total")
        self._jobs = self._families.counter("secbeat_provisioner_jobs_total")
        self._seconds = self._families.histogram("secbeat_provisioner_job_seconds")
        self._waits = self._families.histogram("secbeat_provisioner_job_wait_seconds")
        self._families.info("secbeat_provisioner_build_info", version=__version__)
        self.registry.register(self._live)
        ProcessCollector(registry=self.registry)

    def webhook(self, action: str, status: int) -> None:
        """One request was answered."""
        self._webhooks.labels(action, str(status)).inc()
        if status < 300:
            self._live.last_webhook = self._now()

    def job_ended(self, job: JobRecord) -> None:
        """One job has ended."""
        code = job.error.code if job.error is not None else ""
        self._jobs.labels(job.action, job.pool, job.state, code).inc()
        if job.started_at is None:
            return
        trace = exemplar(job.traceparent)
        waited = max((job.started_at - job.created_at).total_seconds(), 0.0)
        self._waits.labels(job.action).observe(waited, trace)
        if job.finished_at is not None:
            self._seconds.labels(job.action).observe((job.finished_at - job.started_at).total_seconds(), trace)

    def bind(self, limits: Limits, running: Callable[[], int]) -> None:
        """Read these when asked."""
        self._live.limits, self._live.running = limits, running

    def bind_restarts(self, restarts: Callable[[], int]) -> None:
        """Read the fork server's restarts when asked."""
        self._live.restarts = restarts

    def bind_certificate(self, expiry: Callable[[], float | None]) -> None:
        """Read the end of the listener's certificate, Unix time, when asked; None: there is none."""
        self._live.certificate = expiry

    async def serve(self, request: web.Request) -> web.Response:
        """``GET /metrics``."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self.registry), headers={"Content-Type": content_type})


class _Live(Collector):
    """What is read and not counted."""

    def __init__(self, families: Families) -> None:
        self._make = families
        self.limits: Limits | None = None
        self.running: Callable[[], int] = lambda: 0
        self.restarts: Callable[[], int] = lambda: 0
        self.certificate: Callable[[], float | None] = lambda: None
        self.last_webhook = 0.0

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        make, limits = self._make, self.limits
        machines: Labelled = {} if limits is None else {(pool,): count for pool, count in limits.machines().items()}
        breakers: Labelled = {} if limits is None else {(pool,): 1 for pool in limits.open_breakers()}
        yield make.gauge("secbeat_provisioner_machines", machines)
        yield make.gauge("secbeat_provisioner_breaker_open", breakers)
        yield make.gauge("secbeat_provisioner_open_jobs", 0 if limits is None else limits.open_jobs())
        yield make.gauge("secbeat_provisioner_running_jobs", self.running())
        yield make.gauge("secbeat_provisioner_last_webhook_timestamp_seconds", self.last_webhook)
        yield make.count("secbeat_provisioner_fork_server_restarts_total", self.restarts())
        yield make.gauge("secbeat_provisioner_certificate_expiry_timestamp_seconds", self.certificate())
