"""Prometheus metrics on :9090, read from the data plane at the scrape: ours, and the original's names we can honour."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.dataplane import DataPlane, Totals
from node.drain import Drain
from node.load import Sample, Sampler


class NodeCollector(Collector):
    """Makes the families anew at each scrape."""

    def __init__(self, plane: DataPlane, sampler: Sampler, drain: Drain) -> None:
        self._plane, self._sampler, self._drain = plane, sampler, drain

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        totals, load = self._plane.stats(), self._sampler.latest
        yield from _traffic(totals)
        yield from _load(load)
        yield GaugeMetricFamily("secbeat_node_draining", "1 while the node drains.", value=float(self._drain.draining))
        yield from _original(totals)


def registry(plane: DataPlane, sampler: Sampler, drain: Drain) -> CollectorRegistry:
    """A registry with the node's metrics and the process's own."""
    made = CollectorRegistry()
    made.register(NodeCollector(plane, sampler, drain))
    ProcessCollector(registry=made)
    return made


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _traffic(totals: Totals) -> Iterator[Metric]:
    yield _counter("secbeat_node_requests", "Requests received.", totals.requests)
    yield _counter("secbeat_node_requests_proxied", "Requests passed to the upstream.", totals.proxied)
    yield _counter("secbeat_node_responses_failed", "Responses with a status of 500 or more.", totals.server_errors)
    yield _counter("secbeat_node_requests_blocked", "Requests refused by the blocklist.", totals.blocked)
    yield _counter("secbeat_node_requests_over_limit", "Requests refused by max_connections.", totals.over_limit)
    yield _counter("secbeat_node_websockets", "WebSockets opened.", totals.upgraded)
    yield _counter("secbeat_node_tls_handshakes", "TLS handshakes completed.", totals.handshakes)
    yield _gauge("secbeat_node_connections", "Client connections now.", totals.connections)
    yield _gauge("secbeat_node_in_flight", "Requests being served now.", totals.in_flight)
    yield _gauge("secbeat_node_blocklist_entries", "Entries of the blocklist.", totals.blocklist_size)


def _load(load: Sample) -> Iterator[Metric]:
    yield _gauge("secbeat_node_cpu_ratio", "CPU in use over the last heartbeat interval, 0 to 1.", load.cpu)
    yield _gauge("secbeat_node_memory_ratio", "Memory in use, 0 to 1.", load.memory)
    yield _gauge("secbeat_node_requests_per_second", "Over the last heartbeat interval.", load.rps)
    latency = GaugeMetricFamily(
        "secbeat_node_latency_seconds", "Latency quantiles over the last heartbeat interval.", labels=["quantile"]
    )
    for quantile, value in (("0.5", load.latency.p50), ("0.95", load.latency.p95), ("0.99", load.latency.p99)):
        latency.add_metric([quantile], value / 1000)
    yield latency


def _original(totals: Totals) -> Iterator[Metric]:
    """The original's names. Those of its packet filter and WAF are left out: zero would be a claim."""
    for name, value in (
        ("https_requests_received", totals.requests),
        ("requests_proxied", totals.proxied),
        ("tls_handshakes_completed", totals.handshakes),
        ("http_errors_total", totals.http_errors),
        ("blocked_requests_total", totals.blocked),
        ("l7_proxy_blocked_blacklist", totals.blocked),
        ("l7_proxy_blocked_connection_limit", totals.over_limit),
    ):
        # An untyped family keeps a name as it is; a counter family would put _total behind it.
        family = Metric(name, "The original's name.", "unknown")
        family.add_sample(name, {}, value)
        yield family
    yield _gauge("active_connections", "The original's name.", totals.connections)
    yield _gauge("ddos_blacklist_size", "The original's name: entries of the blocklist.", totals.blocklist_size)
