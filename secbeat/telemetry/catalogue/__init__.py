"""The catalogue of metrics: every name that ``/metrics`` of a service shows, and nothing else.

The services make their metrics from these entries (``secbeat.telemetry.families``), the reference page is generated
from them, and alerts and dashboard are checked against them.
"""

from __future__ import annotations

from secbeat.telemetry.catalogue._metric import Kind, Metric, Service
from secbeat.telemetry.catalogue.node import NODE
from secbeat.telemetry.catalogue.orchestrator import ORCHESTRATOR
from secbeat.telemetry.catalogue.provisioner import PROVISIONER

__all__ = ["CATALOGUE", "Kind", "Metric", "Service", "of", "process"]

_PROCESS = (
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", "bytes"),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", "bytes"),
    ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", "seconds"),
    ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", "seconds"),
    ("process_open_fds", "gauge", "Number of open file descriptors.", ""),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors.", ""),
)


def process(service: Service) -> tuple[Metric, ...]:
    """What Prometheus' client library tells about the process itself."""
    return tuple(
        Metric(name=name, kind=kind, service=service, help=text, unit=unit)  # type: ignore[arg-type]  # the literals above
        for name, kind, text, unit in _PROCESS
    )


_OWN: dict[Service, tuple[Metric, ...]] = {"orchestrator": ORCHESTRATOR, "provisioner": PROVISIONER, "node": NODE}
CATALOGUE: dict[Service, dict[str, Metric]] = {
    service: {metric.name: metric for metric in (*own, *process(service))} for service, own in _OWN.items()
}


def of(service: Service) -> dict[str, Metric]:
    """A service's metrics by name."""
    return CATALOGUE[service]
