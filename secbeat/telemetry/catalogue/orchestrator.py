"""The orchestrator's metrics: the guide's four names, the original's, and ours."""

from __future__ import annotations

from functools import partial

from secbeat.telemetry.catalogue._metric import Metric

_counter = partial(Metric, service="orchestrator", kind="counter")
_gauge = partial(Metric, service="orchestrator", kind="gauge")
_histogram = partial(Metric, service="orchestrator", kind="histogram")

_POOL = {"pool": "a configured pool"}
_ACTION = {"action": "`create`, `destroy`"}
_OPERATION_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800)
_STAGE_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 900)

GUIDE = (
    _counter(
        name="secbeat_scaling_decisions_total",
        help="Decisions that changed a pool's size.",
        labels=("action",),
        values={"action": "`scale_up`, `scale_down`"},
    ),
    _counter(name="secbeat_node_terminations_total", help="Nodes told to terminate."),
    _gauge(name="secbeat_fleet_size_current", help="Active nodes of all pools."),
    _counter(
        name="secbeat_webhook_calls_total",
        help="Webhook attempts.",
        labels=("status",),
        values={"status": "`success`, `failure`"},
    ),
)

ORIGINAL = (
    _counter(name="orchestrator_nodes_registered_total", help="Registrations and joins."),
    _counter(name="orchestrator_nodes_terminated_total", help="Nodes told to terminate."),
    _counter(name="orchestrator_nodes_marked_dead_total", help="Nodes with the verdict dead."),
    _counter(name="orchestrator_nodes_gracefully_terminated_total", help="Nodes that left after a drain."),
    _counter(name="orchestrator_unexpected_node_failures_total", help="Nodes that died without having been told to."),
    _counter(
        name="orchestrator_self_healing_webhooks_sent_total",
        help="Webhooks that replace a dead node, accepted by the receiver.",
    ),
    _counter(
        name="orchestrator_self_healing_webhook_errors_total",
        help="Webhooks that replace a dead node, refused or failed.",
    ),
    _gauge(name="orchestrator_total_nodes", help="Nodes known."),
    _gauge(name="orchestrator_active_nodes", help="Nodes active."),
    _counter(name="orchestrator_heartbeats_received_total", help="Heartbeats, NATS and HTTP."),
    # The original's name lacks `_total`, which the client library would append to a counter.
    Metric(
        service="orchestrator",
        kind="untyped",
        name="orchestrator_heartbeats_unknown_node",
        help="Heartbeats of unknown nodes.",
    ),
)

DECISIONS = (
    _counter(
        name="secbeat_decisions_total",
        help="Evaluations of a pool by direction and reason, holds included.",
        labels=("pool", "direction", "code"),
        values={
            **_POOL,
            "direction": "`up`, `down`, `replace`, `hold`",
            "code": "a [reason code](codes.md): a closed list",
        },
    ),
    _gauge(
        name="secbeat_pool_last_decision_timestamp_seconds",
        help="When this process last evaluated the pool, Unix time.",
        labels=("pool",),
        values=_POOL,
        unit="seconds",
    ),
    _gauge(
        name="secbeat_pool_check_interval_seconds",
        help="Seconds between two scheduled evaluations, as configured.",
        labels=("pool",),
        values=_POOL,
        unit="seconds",
    ),
    _gauge(name="secbeat_leader", help="1 while this orchestrator holds the lease."),
    _gauge(name="secbeat_lease_epoch", help="The lease's epoch, as last seen."),
)

POOLS = (
    _gauge(
        name="secbeat_pool_nodes",
        help="Nodes of a pool by state.",
        labels=("pool", "state"),
        values={**_POOL, "state": "`active`, `pending`, `draining`, `failed`"},
    ),
    _gauge(
        name="secbeat_pool_limit_nodes",
        help="min and max of a pool.",
        labels=("pool", "limit"),
        values={**_POOL, "limit": "`min`, `max`"},
    ),
    _gauge(
        name="secbeat_pool_desired_nodes",
        help="The size that the last decision wants.",
        labels=("pool",),
        values=_POOL,
    ),
    _gauge(
        name="secbeat_pool_cpu_ratio",
        help="Mean CPU of the fresh nodes, 0 to 1; absent while none is fresh.",
        labels=("pool",),
        values=_POOL,
        unit="ratio",
    ),
    _gauge(
        name="secbeat_pool_fresh_nodes",
        help="Active nodes whose metrics counted in the last evaluation.",
        labels=("pool",),
        values=_POOL,
    ),
    _gauge(
        name="secbeat_pool_silent_nodes",
        help="Active nodes without a heartbeat for three intervals, as of the last evaluation.",
        labels=("pool",),
        values=_POOL,
    ),
    _gauge(
        name="secbeat_pool_paused",
        help="1 while growth (out) or shrinking (in) is paused.",
        labels=("pool", "direction"),
        values={**_POOL, "direction": "`in`, `out`"},
    ),
    _gauge(
        name="secbeat_pool_pause_age_seconds",
        help="For how long the pause in force has stood; absent without one.",
        labels=("pool",),
        values=_POOL,
        unit="seconds",
    ),
    _gauge(name="secbeat_pool_override", help="1 while a manual size is in force.", labels=("pool",), values=_POOL),
    _gauge(name="secbeat_pool_frozen", help="1 while mass silence freezes the pool.", labels=("pool",), values=_POOL),
    _gauge(
        name="secbeat_pool_breaker_open",
        help="1 while creations are stopped after failed boots.",
        labels=("pool",),
        values=_POOL,
    ),
    _gauge(
        name="secbeat_pool_breaker_failures",
        help="Boots in a row that never joined.",
        labels=("pool",),
        values=_POOL,
    ),
    _gauge(
        name="secbeat_pool_drain_deadline_seconds",
        help="Grace period of a drain, as configured.",
        labels=("pool",),
        values=_POOL,
        unit="seconds",
    ),
)

OPERATIONS = (
    _counter(
        name="secbeat_operations_total",
        help="Ended operations.",
        labels=("pool", "action", "state"),
        values={**_POOL, **_ACTION, "state": "`succeeded`, `failed`, `cancelled`, `needs_operator`"},
    ),
    _gauge(
        name="secbeat_open_operations",
        help="Operations that have not ended.",
        labels=("pool", "action", "state"),
        values={**_POOL, **_ACTION, "state": "a state of an operation that is not an end"},
    ),
    _gauge(
        name="secbeat_open_operation_age_seconds",
        help="Seconds since the oldest open operation of a state was decided.",
        labels=("pool", "action", "state"),
        values={**_POOL, **_ACTION, "state": "as above"},
        unit="seconds",
    ),
    _histogram(
        name="secbeat_operation_seconds",
        help="From the intent to the end of an operation that succeeded; the sum of its stages.",
        labels=("pool", "action"),
        values={**_POOL, **_ACTION},
        unit="seconds",
        buckets=_OPERATION_BUCKETS,
    ),
    _histogram(
        name="secbeat_scale_up_stage_seconds",
        help="Stages of a scale-up that succeeded; they add up to its wall time.",
        labels=("pool", "stage"),
        values={**_POOL, "stage": "`webhook`, `queue`, `engine`, `boot`, `join`, `rotation`"},
        unit="seconds",
        buckets=_STAGE_BUCKETS,
    ),
    _histogram(
        name="secbeat_scale_down_stage_seconds",
        help="Stages of a scale-down that succeeded; they add up to its wall time.",
        labels=("pool", "stage"),
        values={**_POOL, "stage": "`notice`, `drain`, `webhook`, `queue`, `teardown`, `confirm`"},
        unit="seconds",
        buckets=_STAGE_BUCKETS,
    ),
)

RECEIVER = (
    _counter(
        name="secbeat_pool_webhook_calls_total",
        help="Webhook attempts, per pool.",
        labels=("pool", "status"),
        values={**_POOL, "status": "`success`, `failure`"},
    ),
    _gauge(
        name="secbeat_webhook_last_success_timestamp_seconds",
        help="When the receiver last answered 2xx, Unix time; 0 before the first.",
        unit="seconds",
    ),
    _gauge(name="secbeat_webhook_consecutive_failures", help="Webhook attempts that failed since the last success."),
    _gauge(
        name="secbeat_receiver_clock_skew_seconds",
        help="How far the provisioner's clock is ahead of ours, from the newest job that it accepted.",
        unit="seconds",
    ),
)

SURROUNDINGS = (
    _counter(
        name="secbeat_heartbeats_total",
        help="Heartbeats by outcome.",
        labels=("outcome",),
        values={
            "outcome": "`received` (all), and of them `malformed`, `stale`, `unknown`, `bad_field`, `newer_version`"
        },
    ),
    _gauge(name="secbeat_nats_connected", help="1 while NATS is connected."),
    _counter(
        name="secbeat_nats_errors_total",
        help="Asynchronous errors of the NATS connection.",
        labels=("kind",),
        values={"kind": "`permission`, `slow_consumer`, `handler` and the like"},
    ),
    _counter(
        name="secbeat_store_errors_total",
        help="Writes that the store did not confirm.",
        labels=("store",),
        values={"store": "`state`, `ledger`"},
    ),
    _gauge(
        name="secbeat_stream_bytes",
        help="Bytes that a stream of ours holds.",
        labels=("stream",),
        values={"stream": "a stream or bucket of JetStream"},
        unit="bytes",
    ),
    _gauge(
        name="secbeat_stream_limit_bytes",
        help="Bytes that a stream of ours may hold.",
        labels=("stream",),
        values={"stream": "as above"},
        unit="bytes",
    ),
    _gauge(name="secbeat_ledger_waiting_decisions", help="Decisions that the ledger does not have yet."),
    _counter(
        name="secbeat_ledger_lost_decisions_total", help="Decisions that the ledger never got: it was away too long."
    ),
    _gauge(name="secbeat_event_followers", help="Open event streams."),
    _gauge(name="secbeat_blocked_ips", help="Entries of the blocklist."),
    _gauge(
        name="secbeat_certificate_expiry_timestamp_seconds",
        help="When the certificate of a listener ends, Unix time; absent without TLS.",
        labels=("listener",),
        values={"listener": "`api`"},
        unit="seconds",
    ),
    Metric(
        service="orchestrator",
        kind="info",
        name="secbeat_build_info",
        help="This program.",
        labels=("version",),
        values={"version": "of the distribution"},
    ),
)

ORCHESTRATOR = (*GUIDE, *ORIGINAL, *DECISIONS, *POOLS, *OPERATIONS, *RECEIVER, *SURROUNDINGS)
