"""``python -m secbeat.telemetry.reference metrics|logs`` prints a reference page of the docs as Markdown.

Generated from the catalogue and from the schema of log lines, so the pages cannot say anything else than the program
does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from secbeat.telemetry import logschema
from secbeat.telemetry.catalogue import CATALOGUE, Metric, Service

_METRICS = """# Metrics

Every name that a service shows at `/metrics`, in the form that the scraper asks for: Prometheus' text form or
OpenMetrics. Histograms carry exemplars (`trace_id`) in the OpenMetrics form while traces are on. Names of nodes and
operations are never labels, so the number of series does not grow with the number of machines that come and go.

Series of pools, operations and the fleet are shown by the orchestrator that leads, so that a sum over several
orchestrators is right.

How to scrape, the alert rules and the dashboard: [Monitoring](../howto/monitoring.md). A counter begins at 0 with the
process; `rate()` and `increase()` know that.
"""
_WHERE: dict[Service, str] = {
    "orchestrator": "`GET /metrics` at `orchestrator.metrics_addr`, 127.0.0.1:9091.",
    "provisioner": "`GET /metrics` at `provisioner.listen_addr`, 127.0.0.1:8000; a token with scope `read`.",
    "node": "`GET /metrics` at `node.metrics_addr`, 127.0.0.1:9090.",
}
_LOGS = """# Log lines

A service writes one JSON object per line to standard error, plain lines on a terminal and to its log file. Each JSON
line is valid against one [JSON Schema](https://json-schema.org), `secbeat/telemetry/log.schema.json` in the package.
Times are UTC. No line holds a secret.

`trace_id` and `span_id` stand on the lines of an operation or job while traces are on.
"""


def metrics() -> str:
    """The page of the metrics."""
    return "\n".join([_METRICS, *_services()])


def _services() -> Iterator[str]:
    for service, entries in CATALOGUE.items():
        yield f"## {service.capitalize()}\n\n{_WHERE[service]}\n"
        yield "| metric | kind | unit | labels | meaning | since |\n| --- | --- | --- | --- | --- | --- |"
        yield "\n".join(_row(entry) for entry in entries.values()) + "\n"


def _row(metric: Metric) -> str:
    labels = "; ".join(f"`{label}`: {metric.values[label]}" for label in metric.labels)
    cells = (f"`{metric.name}`", metric.kind, metric.unit, labels, metric.help, metric.since)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def logs() -> str:
    """The page of the log lines."""
    schema = logschema.load()
    rows = (
        f"| `{name}` | {_kind(field)} | {'always' if name in schema['required'] else ''} | {field['description']} |"
        for name, field in schema["properties"].items()
    )
    return "\n".join([_LOGS, "| field | kind | | meaning |\n| --- | --- | --- | --- |", *rows, ""])


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " ".join(f"`{one}`" for one in field["enum"])
    kinds = field["type"]
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


if __name__ == "__main__":
    sys.stdout.write({"metrics": metrics, "logs": logs}[sys.argv[1]]())
