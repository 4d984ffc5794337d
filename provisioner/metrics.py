"""The provisioner's Prometheus series."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from provisioner.limits import Limits
from secbeat.wire.jobs import JobRecord

_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200)


class Metrics:
    """A registry of its own, so that two services in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._webhooks = Counter(
            "secbeat_provisioner_webhooks", "Webhook requests by answer", ["action", "status"], registry=self.registry
        )
        self._jobs = Counter(
            "secbeat_provisioner_jobs", "Jobs that ended", ["action", "pool", "state", "code"], registry=self.registry
        )
        self._seconds = Histogram(
            "secbeat_provisioner_job_seconds",
            "Seconds from the first attempt's start to the end",
            ["action"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._restarts = Gauge(
            "secbeat_provisioner_fork_server_restarts", "Unexpected ends of the fork server", registry=self.registry
        )

    def webhook(self, action: str, status: int) -> None:
        """One request was answered."""
        self._webhooks.labels(action, str(status)).inc()

    def job_ended(self, job: JobRecord) -> None:
        """One job has ended."""
        code = job.error.code if job.error is not None else ""
        self._jobs.labels(job.action, job.pool, job.state, code).inc()
        if job.started_at is not None and job.finished_at is not None:
            self._seconds.labels(job.action).observe((job.finished_at - job.started_at).total_seconds())

    def bind(self, limits: Limits, running: Callable[[], int]) -> None:
        """Read these when asked."""
        self.registry.register(_Live(limits, running))

    def bind_restarts(self, restarts: Callable[[], int]) -> None:
        """Read the fork server's restarts when asked."""
        self._restarts.set_function(lambda: float(restarts()))

    async def serve(self, request: web.Request) -> web.Response:
        """``GET /metrics``."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self.registry), headers={"Content-Type": content_type})


class _Live(Collector):
    def __init__(self, limits: Limits, running: Callable[[], int]) -> None:
        self._limits, self._running = limits, running

    def collect(self) -> list[GaugeMetricFamily]:
        """The gauges, as they are now."""
        machines = GaugeMetricFamily("secbeat_provisioner_machines", "Machines by records", labels=["pool"])
        for pool, count in self._limits.machines().items():
            machines.add_metric([pool], count)
        breakers = GaugeMetricFamily("secbeat_provisioner_breaker_open", "Pools that create nothing", labels=["pool"])
        for pool in self._limits.open_breakers():
            breakers.add_metric([pool], 1)
        return [
            machines,
            breakers,
            GaugeMetricFamily("secbeat_provisioner_open_jobs", "Jobs that wait or run", self._limits.open_jobs()),
            GaugeMetricFamily("secbeat_provisioner_running_jobs", "Jobs that run", self._running()),
        ]
