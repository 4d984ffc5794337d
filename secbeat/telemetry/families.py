"""Prometheus' objects, made from the catalogue: what is not in it cannot be made, and its labels cannot differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from secbeat.telemetry.catalogue import Kind, Metric, Service, of

# A `_created` series beside each counter is noise to an operator, and the guide's names come with its labels only.
disable_created_metrics()  # type: ignore[no-untyped-call]  # published without annotations


class Families:
    """The metrics of one service."""

    def __init__(self, service: Service, registry: CollectorRegistry | None = None) -> None:
        self._entries = of(service)
        self.registry = registry if registry is not None else CollectorRegistry()

    def _entry(self, name: str, kind: Kind) -> Metric:
        entry = self._entries[name]
        if entry.kind != kind:
            raise ValueError(f"{name} is a {entry.kind}")
        return entry

    # -------------------------------------------------------------- counted by us

    def counter(self, name: str) -> Counter:
        """A registered counter."""
        entry = self._entry(name, "counter")
        return Counter(entry.family, entry.help, entry.labels, registry=self.registry)

    def histogram(self, name: str) -> Histogram:
        """A registered histogram."""
        entry = self._entry(name, "histogram")
        return Histogram(entry.name, entry.help, entry.labels, buckets=entry.buckets, registry=self.registry)

    def info(self, name: str, **labels: str) -> None:
        """A registered info metric."""
        entry = self._entry(name, "info")
        Info(entry.family, entry.help, registry=self.registry).info(labels)

    # -------------------------------------------------------------- read at the scrape

    def gauge(self, name: str, values: Mapping[tuple[str, ...], float] | float | None) -> Family:
        """A gauge's family: one value, or one per tuple of label values; None: no sample at all."""
        entry = self._entry(name, "gauge")
        family = GaugeMetricFamily(entry.name, entry.help, labels=entry.labels)
        _fill(family, _pairs(values))
        return family

    def count(self, name: str, values: Mapping[tuple[str, ...], float] | float) -> Family:
        """A counter's family, counted elsewhere."""
        entry = self._entry(name, "counter")
        family = CounterMetricFamily(entry.family, entry.help, labels=entry.labels)
        _fill(family, _pairs(values))
        return family

    def untyped(self, name: str, value: float) -> Family:
        """A name that stays as it is: a counter's family would put ``_total`` behind it."""
        entry = self._entry(name, "untyped")
        family = Family(entry.name, entry.help, "unknown")
        family.add_sample(entry.name, {}, value)
        return family


def _pairs(values: Mapping[tuple[str, ...], float] | float | None) -> Iterable[tuple[tuple[str, ...], float]]:
    if values is None:
        return ()
    return values.items() if isinstance(values, Mapping) else (((), values),)


def _fill(family: GaugeMetricFamily | CounterMetricFamily, pairs: Iterable[tuple[tuple[str, ...], float]]) -> None:
    for labels, value in pairs:
        family.add_metric(labels, float(value))
