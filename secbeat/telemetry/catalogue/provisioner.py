"""The provisioner's metrics."""

from __future__ import annotations

from functools import partial

from secbeat.telemetry.catalogue._metric import Metric

_counter = partial(Metric, service="provisioner", kind="counter")
_gauge = partial(Metric, service="provisioner", kind="gauge")

_POOL = {"pool": "a pool that asked for a machine"}
_ACTION = {"action": "`create`, `destroy`"}

PROVISIONER = (
    _counter(
        name="secbeat_provisioner_webhooks_total",
        help="Webhook requests by answer.",
        labels=("action", "status"),
        values={**_ACTION, "status": "the HTTP status of the answer"},
    ),
    _gauge(
        name="secbeat_provisioner_last_webhook_timestamp_seconds",
        help="When a webhook was last taken (2xx), Unix time; 0 before the first.",
        unit="seconds",
    ),
    _counter(
        name="secbeat_provisioner_jobs_total",
        help="Jobs that ended.",
        labels=("action", "pool", "state", "code"),
        values={
            **_ACTION,
            **_POOL,
            "state": "`succeeded`, `failed`, `cancelled`",
            "code": "an [error code](codes.md), empty for a success",
        },
    ),
    Metric(
        service="provisioner",
        kind="histogram",
        name="secbeat_provisioner_job_seconds",
        help="From the first attempt's start to the job's end.",
        labels=("action",),
        values=_ACTION,
        unit="seconds",
        buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200),
    ),
    Metric(
        service="provisioner",
        kind="histogram",
        name="secbeat_provisioner_job_wait_seconds",
        help="From the job's acceptance to its first attempt's start.",
        labels=("action",),
        values=_ACTION,
        unit="seconds",
        buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900),
    ),
    _gauge(name="secbeat_provisioner_open_jobs", help="Jobs that wait or run."),
    _gauge(name="secbeat_provisioner_running_jobs", help="Jobs that run here."),
    _gauge(
        name="secbeat_provisioner_machines",
        help="Machines by records.",
        labels=("pool",),
        values=_POOL,
    ),
    _gauge(
        name="secbeat_provisioner_breaker_open",
        help="1 for each pool whose creations are refused after failures.",
        labels=("pool",),
        values=_POOL,
    ),
    _counter(
        name="secbeat_provisioner_fork_server_restarts_total",
        help="Unexpected ends of the process that forks the jobs' processes.",
    ),
    _gauge(
        name="secbeat_provisioner_certificate_expiry_timestamp_seconds",
        help="When the certificate of the listener ends, Unix time; absent without TLS.",
        unit="seconds",
    ),
    Metric(
        service="provisioner",
        kind="info",
        name="secbeat_provisioner_build_info",
        help="This program.",
        labels=("version",),
        values={"version": "of the distribution"},
    ),
)
