"""Prometheus metrics on :9090, read from the data plane at the scrape: ours, and the original's names we can honour."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from node.dataplane import DataPlane, Totals
from node.drain import Drain
from node.load import Sample, Sampler
from secbeat.telemetry.families import Families


class NodeCollector(Collector):
    """Makes the families anew at each scrape; names and texts stand in the catalogue."""

    def __init__(self, plane: DataPlane, sampler: Sampler, drain: Drain, families: Families | None = None) -> None:
        self._plane, self._sampler, self._drain = plane, sampler, drain
        self._make = families or Families("node")

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        totals = self._plane.stats()
        yield from self._traffic(totals)
        yield from self._load(self._sampler.latest)
        yield self._make.gauge("secbeat_node_draining", float(self._drain.draining))
        yield from self._original(totals)

    def _traffic(self, totals: Totals) -> Iterator[Metric]:
        for name, value in (
            ("requests", totals.requests),
            ("requests_proxied", totals.proxied),
            ("responses_failed", totals.server_errors),
            ("requests_blocked", totals.blocked),
            ("requests_over_limit", totals.over_limit),
            ("websockets", totals.upgraded),
            ("tls_handshakes", totals.handshakes),
        ):
            yield self._make.count(f"secbeat_node_{name}_total", value)
        yield self._make.gauge("secbeat_node_connections", totals.connections)
        yield self._make.gauge("secbeat_node_in_flight", totals.in_flight)
        yield self._make.gauge("secbeat_node_blocklist_entries", totals.blocklist_size)

    def _load(self, load: Sample) -> Iterator[Metric]:
        yield self._make.gauge("secbeat_node_cpu_ratio", load.cpu)
        yield self._make.gauge("secbeat_node_memory_ratio", load.memory)
        yield self._make.gauge("secbeat_node_requests_per_second", load.rps)
        quantiles = (("0.5", load.latency.p50), ("0.95", load.latency.p95), ("0.99", load.latency.p99))
        seconds: dict[tuple[str, ...], float] = {(quantile,): value / 1000 for quantile, value in quantiles}
        yield self._make.gauge("secbeat_node_latency_seconds", seconds)

    def _original(self, totals: Totals) -> Iterator[Metric]:
        for name, value in (
            ("https_requests_received", totals.requests),
            ("requests_proxied", totals.proxied),
            ("tls_handshakes_completed", totals.handshakes),
            ("http_errors_total", totals.http_errors),
            ("blocked_requests_total", totals.blocked),
            ("l7_proxy_blocked_blacklist", totals.blocked),
            ("l7_proxy_blocked_connection_limit", totals.over_limit),
        ):
            yield self._make.untyped(name, value)
        yield self._make.gauge("active_connections", totals.connections)
        yield self._make.gauge("ddos_blacklist_size", totals.blocklist_size)


def registry(plane: DataPlane, sampler: Sampler, drain: Drain) -> CollectorRegistry:
    """A registry with the node's metrics and the process's own."""
    families = Families("node")
    families.registry.register(NodeCollector(plane, sampler, drain, families))
    ProcessCollector(registry=families.registry)
    return families.registry
