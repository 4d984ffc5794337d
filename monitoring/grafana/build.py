# ruff: noqa: INP001 - a program beside its output, not a package
"""Write ``secbeat.json``, the Grafana dashboard: ``python monitoring/grafana/build.py``. A test holds the two equal.

Kept as code because JSON of this size is reviewed by nobody: here each panel is a few lines, with its unit, and the
text that says what to make of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).with_name("secbeat.json")
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel. ``queries``: (expression, legend)."""

    title: str
    description: str
    queries: tuple[tuple[str, str], ...]
    unit: str
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    thresholds: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    exemplars: bool = False


@dataclass(frozen=True)
class Row:
    """A row of panels."""

    title: str
    panels: tuple[Panel, ...] = field(default=())


def stat(title: str, description: str, query: str, *, unit: str = "short", bad: float | None = None) -> Panel:
    """One number; red from ``bad`` on."""
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"),) if bad is None else ((None, "green"), (bad, "red"))
    return Panel(
        title=title, description=description, queries=((query, ""),), unit=unit, kind="stat", width=4, height=4,
        thresholds=steps,
    )  # fmt: skip


def quantiles(metric: str, by: str, selector: str) -> str:
    """The 95th percentile of a histogram."""
    return f"histogram_quantile(0.95, sum by (le, {by}) (rate({metric}_bucket{{{selector}}}{RATE})))"


def stages(metric: str) -> str:
    """Mean seconds per stage."""
    sums, counts = (f"sum by (stage) (rate({metric}_{part}{{{POOL}}}{RATE}))" for part in ("sum", "count"))
    return f"{sums} / {counts}"


POOL = 'pool=~"$pool"'
OVERVIEW = Row(
    "Overview",
    (
        stat("Active nodes", "Nodes in rotation, of the chosen pools.",
             f'sum(max by (pool) (secbeat_pool_nodes{{{POOL},state="active"}}))'),
        stat("On their way", "Requested, booting or joining: capacity that counts already.",
             f'sum(max by (pool) (secbeat_pool_nodes{{{POOL},state="pending"}}))'),
        stat("Leads", "Orchestrators that hold the lease. Anything but 1 is a fault.", "sum(secbeat_leader)", bad=2),
        stat("Pools paused", "Pools with a pause in force.",
             f"count(max by (pool) (secbeat_pool_paused{{{POOL}}}) > 0) or vector(0)", bad=1),
        stat("Pools held back", "Pools with an open breaker or a freeze.",
             f"sum(max by (pool) (secbeat_pool_breaker_open{{{POOL}}}))"
             f" + sum(max by (pool) (secbeat_pool_frozen{{{POOL}}}))", bad=1),
        stat("Provisioner", "Webhook attempts that failed since the last success.",
             "max(secbeat_webhook_consecutive_failures)", bad=3),
        Panel(title="Nodes by state", unit="short", width=12, stacked=True,
              description="By the orchestrator's records. Silent nodes count as active until their verdict.",
              queries=((f"sum by (state) (max by (pool, state) (secbeat_pool_nodes{{{POOL}}}))", "{{state}}"),)),
        Panel(title="Size between its limits", unit="short", width=12,
              description="What each pool has and wants, and the min and max within which it moves.",
              queries=(
                  (f"max by (pool) (secbeat_pool_desired_nodes{{{POOL}}})", "{{pool}} desired"),
                  (f'max by (pool) (secbeat_pool_nodes{{{POOL},state="active"}})', "{{pool}} active"),
                  (f"max by (pool, limit) (secbeat_pool_limit_nodes{{{POOL}}})", "{{pool}} {{limit}}"),
              )),
    ),
)  # fmt: skip
ACTIVITY = Row(
    "Scaling activity",
    (
        Panel(title="CPU that decides", unit="percentunit", width=8,
              description="Mean CPU of the fresh nodes, the number that the thresholds are compared with.",
              queries=((f"max by (pool) (secbeat_pool_cpu_ratio{{{POOL}}})", "{{pool}}"),)),
        Panel(title="Why: evaluations by reason", unit="short", width=8, stacked=True,
              description="Every evaluation, holds included, by reason code. `secbeat explain CODE` tells more.",
              queries=((f"sum by (direction, code) (increase(secbeat_decisions_total{{{POOL}}}{RATE}))",
                        "{{direction}} {{code}}"),)),
        Panel(title="Operations that ended", unit="short", width=8, stacked=True,
              description="Creates and destroys, by how they ended.",
              queries=((f"sum by (action, state) (increase(secbeat_operations_total{{{POOL}}}{RATE}))",
                        "{{action}} {{state}}"),)),
        Panel(title="Operations under way", unit="short", width=8, stacked=True,
              description="Operations that have not ended, by state.",
              queries=((f"sum by (action, state) (secbeat_open_operations{{{POOL}}})", "{{action}} {{state}}"),)),
        Panel(title="Oldest operation under way", unit="s", width=8,
              description="Its age since the decision. A line that goes on rising is stuck.",
              queries=((f"max by (pool, action, state) (secbeat_open_operation_age_seconds{{{POOL}}})",
                        "{{pool}} {{action}} {{state}}"),)),
        Panel(title="Silent nodes", unit="short", width=8,
              description="Active nodes without a heartbeat for three intervals, as of the last evaluation.",
              queries=((f"max by (pool) (secbeat_pool_silent_nodes{{{POOL}}})", "{{pool}}"),)),
    ),
)  # fmt: skip
PROVISIONING = Row(
    "Provisioning performance",
    (
        Panel(title="Scale-up, from decision to rotation", unit="s", width=8, exemplars=True,
              description="95th percentile of the wall time of creates that succeeded.",
              queries=((quantiles("secbeat_operation_seconds", "pool", f'{POOL},action="create"'), "{{pool}}"),)),
        Panel(title="Where a scale-up's time goes", unit="s", width=8, stacked=True,
              description="Mean seconds per stage; the stages add up to the wall time.",
              queries=((stages("secbeat_scale_up_stage_seconds"), "{{stage}}"),)),
        Panel(title="Where a scale-down's time goes", unit="s", width=8, stacked=True,
              description="Mean seconds per stage, the drain among them.",
              queries=((stages("secbeat_scale_down_stage_seconds"), "{{stage}}"),)),
        Panel(title="Jobs by end", unit="short", width=8, stacked=True,
              description="Jobs of the provisioner by state and error code.",
              queries=((f"sum by (action, state, code) (increase(secbeat_provisioner_jobs_total{{{POOL}}}{RATE}))",
                        "{{action}} {{state}} {{code}}"),)),
        Panel(title="Jobs now", unit="short", width=8,
              description="Jobs that wait or run, and of them those that run.",
              queries=(("sum(secbeat_provisioner_open_jobs)", "open"),
                       ("sum(secbeat_provisioner_running_jobs)", "running"))),
        Panel(title="Webhooks", unit="short", width=8, stacked=True,
              description="Attempts of the orchestrator, by outcome. Failed ones are tried again.",
              queries=((f"sum by (status) (increase(secbeat_pool_webhook_calls_total{{{POOL}}}{RATE}))",
                        "{{status}}"),)),
    ),
)  # fmt: skip
TRAFFIC = Row(
    "Node traffic",
    (
        Panel(title="Requests", unit="reqps", width=8,
              description="Of all scraped nodes: received, refused, and answered with 500 or more.",
              queries=((f"sum(rate(secbeat_node_requests_total{RATE}))", "received"),
                       (f"sum(rate(secbeat_node_responses_failed_total{RATE}))", "failed"),
                       (f"sum(rate(secbeat_node_requests_blocked_total{RATE}))", "blocked"),
                       (f"sum(rate(secbeat_node_requests_over_limit_total{RATE}))", "over limit"))),
        Panel(title="Latency, worst node", unit="s", width=8,
              description="Quantiles that the nodes measure themselves, of the slowest node.",
              queries=(("max by (quantile) (secbeat_node_latency_seconds)", "{{quantile}}"),)),
        Panel(title="CPU by node", unit="percentunit", width=8,
              description="Each scraped node's own CPU.",
              queries=(("secbeat_node_cpu_ratio", "{{instance}}"),)),
        Panel(title="Connections", unit="short", width=8,
              description="Client connections, and requests in flight.",
              queries=(("sum(secbeat_node_connections)", "connections"),
                       ("sum(secbeat_node_in_flight)", "in flight"))),
        Panel(title="Draining nodes", unit="short", width=8,
              description="Nodes that say they drain.",
              queries=(("sum(secbeat_node_draining)", "draining"),)),
        Panel(title="Heartbeats", unit="short", width=8, stacked=False,
              description="Received per second, and those that were not applied, by reason.",
              queries=((f"sum by (outcome) (rate(secbeat_heartbeats_total{RATE}))", "{{outcome}}"),)),
    ),
)  # fmt: skip
ROWS = (OVERVIEW, ACTIVITY, PROVISIONING, TRAFFIC)


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana imports it."""
    return {
        "uid": "secbeat",
        "title": "SecBeat",
        "description": "Fleet, scaling, provisioning and traffic. Metrics: the reference page of the documentation.",
        "tags": ["secbeat", "autoscaling"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "utc",
        "templating": {"list": _variables()},
        "annotations": {"list": [_annotation()]},
        "panels": list(_panels()),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0},
        {
            "name": "pool",
            "label": "Pool",
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": "label_values(secbeat_pool_nodes, pool)", "refId": "pools"},
            "definition": "label_values(secbeat_pool_nodes, pool)",
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
            "sort": 1,
        },
    ]


def _annotation() -> dict[str, Any]:
    return {
        "name": "Scaling decisions",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": "sum by (action) (increase(secbeat_scaling_decisions_total[1m])) > 0",
        "titleFormat": "{{action}}",
        "step": "60s",
    }


def _panels() -> Any:
    number, top = 1, 0
    for row in ROWS:
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top},
        }
        number, top, left, lowest = number + 1, top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                left, top, lowest = 0, top + lowest, 0
            yield _panel(panel, number, left, top)
            number, left, lowest = number + 1, left + panel.width, max(lowest, panel.height)
        top += lowest


def _panel(panel: Panel, number: int, left: int, top: int) -> dict[str, Any]:
    custom = {"fillOpacity": 20, "showPoints": "never", "stacking": {"mode": "normal" if panel.stacked else "none"}}
    steps = [{"value": value, "color": color} for value, color in panel.thresholds]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"h": panel.height, "w": panel.width, "x": left, "y": top},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                **({"custom": custom} if panel.kind == "timeseries" else {}),
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        if panel.kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                "exemplar": panel.exemplars,
                "instant": panel.kind == "stat",
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


def render() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(render(), encoding="utf-8")
