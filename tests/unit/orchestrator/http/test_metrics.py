"""The metrics, as a scraper reads them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from aiohttp import ClientSession
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse

from orchestrator.metrics import Metrics
from secbeat import __version__
from secbeat.api import listen, metrics_app
from secbeat.wire.operations import Stage
from secbeat.wire.pools import Breaker, Pause


@pytest.fixture
def metrics():
    return Metrics()


def samples(metrics):
    families = parse(generate_latest(metrics.registry).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(metrics, name, **labels):
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def test_the_guides_four_names_exist_from_the_start_with_the_guides_labels_only(metrics):
    guide = {
        key: number
        for key, number in samples(metrics).items()
        if key[0]
        in {
            "secbeat_scaling_decisions_total",
            "secbeat_node_terminations_total",
            "secbeat_fleet_size_current",
            "secbeat_webhook_calls_total",
        }
    }
    assert guide == {
        ("secbeat_scaling_decisions_total", (("action", "scale_up"),)): 0,
        ("secbeat_scaling_decisions_total", (("action", "scale_down"),)): 0,
        ("secbeat_node_terminations_total", ()): 0,
        ("secbeat_fleet_size_current", ()): 0,
        ("secbeat_webhook_calls_total", (("status", "success"),)): 0,
        ("secbeat_webhook_calls_total", (("status", "failure"),)): 0,
    }


@pytest.mark.parametrize(
    "name",
    [
        "orchestrator_nodes_registered_total",
        "orchestrator_heartbeats_received_total",
        "orchestrator_heartbeats_unknown_node",
        "orchestrator_nodes_terminated_total",
        "orchestrator_nodes_marked_dead_total",
        "orchestrator_nodes_gracefully_terminated_total",
        "orchestrator_unexpected_node_failures_total",
        "orchestrator_self_healing_webhooks_sent_total",
        "orchestrator_self_healing_webhook_errors_total",
        "orchestrator_total_nodes",
        "orchestrator_active_nodes",
    ],
)
def test_the_originals_names_exist_from_the_start(metrics, name):
    assert value(metrics, name) == 0


def test_the_guides_counters_are_summed_over_pools(metrics):
    for pool in ("web", "edge"):
        metrics.scaling_decision("scale_up", pool)
        metrics.node_terminated(pool)
        metrics.webhook_call(False, pool)
    metrics.webhook_call(True, "web", self_healing=True)
    assert value(metrics, "secbeat_scaling_decisions_total", action="scale_up") == 2
    assert value(metrics, "secbeat_node_terminations_total") == 2
    assert value(metrics, "secbeat_webhook_calls_total", status="failure") == 2
    assert value(metrics, "secbeat_webhook_calls_total", status="success") == 1
    assert value(metrics, "secbeat_pool_webhook_calls_total", pool="web", status="success") == 1
    assert value(metrics, "orchestrator_self_healing_webhooks_sent_total") == 1
    assert value(metrics, "orchestrator_self_healing_webhook_errors_total") == 0


def test_fleet_size_is_the_active_nodes_of_all_pools_at_the_moment_of_the_scrape(metrics, make):
    views = [make.pool_view("web", active=3), make.pool_view("edge", active=2)]
    metrics.bind(pools=lambda: views)
    assert value(metrics, "secbeat_fleet_size_current") == 5
    views.pop()
    assert value(metrics, "secbeat_fleet_size_current") == 3


def test_a_pool_shows_its_states_limits_pause_and_breaker(metrics, make):
    metrics.pool(
        make.pool_view(
            "web",
            pending=1,
            cpu=None,
            pause=Pause(direction="in", since=make.start),
            breaker=Breaker(failures=3, open_since=make.start),
        )
    )
    assert value(metrics, "secbeat_pool_nodes", pool="web", state="pending") == 1
    assert value(metrics, "secbeat_pool_limit_nodes", pool="web", limit="max") == 10
    assert value(metrics, "secbeat_pool_paused", pool="web", direction="in") == 1
    assert value(metrics, "secbeat_pool_paused", pool="web", direction="out") == 0
    assert value(metrics, "secbeat_pool_breaker_open", pool="web") == 1
    assert value(metrics, "secbeat_pool_frozen", pool="web") == 0
    assert ("secbeat_pool_cpu_ratio", (("pool", "web"),)) not in samples(metrics)


def test_heartbeats_are_read_from_who_counts_them(metrics):
    metrics.bind(heartbeats=lambda: {"received": 10, "unknown": 2, "stale": 1})
    assert value(metrics, "orchestrator_heartbeats_received_total") == 10
    assert value(metrics, "orchestrator_heartbeats_unknown_node") == 2
    assert value(metrics, "secbeat_heartbeats_total", outcome="stale") == 1


def test_the_lease_and_nats_show_as_soon_as_they_are_bound(metrics):
    assert not [name for name, _ in samples(metrics) if name == "secbeat_leader"]
    metrics.bind(leader=lambda: True, epoch=lambda: 7)
    metrics.bind(nats_connected=lambda: False)
    assert value(metrics, "secbeat_leader") == 1
    assert value(metrics, "secbeat_lease_epoch") == 7
    assert value(metrics, "secbeat_nats_connected") == 0


def test_deaths_are_unexpected_unless_said_otherwise(metrics):
    metrics.node_died()
    metrics.node_died(expected=True)
    metrics.node_left()
    assert value(metrics, "orchestrator_nodes_marked_dead_total") == 2
    assert value(metrics, "orchestrator_unexpected_node_failures_total") == 1
    assert value(metrics, "orchestrator_nodes_gracefully_terminated_total") == 1


def test_only_operations_that_succeeded_enter_the_durations(metrics, make):
    at = make.start
    stages = (
        Stage(name="webhook", ended_at=at, seconds=2.0),
        Stage(name="rotation", ended_at=at, seconds=10.0),
    )
    op = make.operation(pool="web", action="create", state="succeeded", stages=stages)
    metrics.operation_ended(op)
    metrics.operation_ended(op.model_copy(update={"state": "failed"}))
    assert value(metrics, "secbeat_operation_seconds_count", pool="web", action="create") == 1
    assert value(metrics, "secbeat_operation_seconds_sum", pool="web", action="create") == 12
    assert value(metrics, "secbeat_scale_up_stage_seconds_sum", pool="web", stage="webhook") == 2
    assert value(metrics, "secbeat_operations_total", pool="web", action="create", state="failed") == 1


def test_the_build_names_the_version(metrics):
    assert value(metrics, "secbeat_build_info", version=__version__) == 1


def test_a_thousand_nodes_that_come_and_go_leave_the_number_of_series_as_it_was(metrics, make):
    views = [make.pool_view("web")]
    opened = []
    metrics.bind(pools=lambda: views, operations=lambda: opened)

    def churn():
        at = make.start
        created = make.operation(pool="web", action="create", state="succeeded", ended_at=at, stages=stages(at))
        destroyed = created.model_copy(update={"action": "destroy", "op_id": "01M89P4QVP8VVN49S2N7D7FP4A"})
        opened[:] = [created.model_copy(update={"state": "booting"})]
        metrics.node_registered()
        metrics.decision("web", "up", "HIGH_FLEET_CPU_LOAD")
        metrics.webhook_call(True, "web")
        metrics.job_accepted(at, at)
        metrics.operation_ended(created)
        metrics.node_terminated("web")
        metrics.node_died()
        metrics.node_left()
        metrics.operation_ended(destroyed.model_copy(update={"stages": stages(at, "drain")}))

    def stages(at, name="boot"):
        return (Stage(name=name, ended_at=at, seconds=1.0),)

    churn()
    before = len(samples(metrics))
    for _ in range(1000):
        churn()
    assert len(samples(metrics)) == before


def test_a_paused_pool_tells_for_how_long(make):
    metrics = Metrics(now=lambda: make.start.timestamp() + 90_000)
    metrics.pool(make.pool_view("web", pause=Pause(direction="both", since=make.start)))
    metrics.pool(make.pool_view("edge"))
    assert value(metrics, "secbeat_pool_pause_age_seconds", pool="web") == 90_000
    assert ("secbeat_pool_pause_age_seconds", (("pool", "edge"),)) not in samples(metrics)


def test_failures_of_the_webhook_are_counted_until_it_answers(make):
    clock = [100.0]
    metrics = Metrics(now=lambda: clock[0])
    for ok in (True, False, False):
        metrics.webhook_call(ok, "web")
        clock[0] += 10
    assert value(metrics, "secbeat_webhook_consecutive_failures") == 2
    assert value(metrics, "secbeat_webhook_last_success_timestamp_seconds") == 100
    metrics.webhook_call(True, "web")
    assert value(metrics, "secbeat_webhook_consecutive_failures") == 0


def test_open_operations_show_by_state_with_the_age_of_the_oldest(make):
    metrics = Metrics(now=lambda: make.start.timestamp() + 60)
    young = make.operation(pool="web", state="accepted", created_at=make.start + timedelta(seconds=50))
    metrics.bind(operations=lambda: [make.operation(pool="web", state="accepted"), young])
    labels = {"pool": "web", "action": "create", "state": "accepted"}
    assert value(metrics, "secbeat_open_operations", **labels) == 2
    assert value(metrics, "secbeat_open_operation_age_seconds", **labels) == 60


def test_the_last_evaluation_of_each_pool_tells_when_it_was(make):
    metrics = Metrics(now=lambda: 500.0)
    metrics.pool(make.pool_view("web"))
    metrics.decision("web", "hold", "WITHIN_THRESHOLDS")
    metrics.decision("gone", "hold", "WITHIN_THRESHOLDS")
    assert value(metrics, "secbeat_pool_last_decision_timestamp_seconds", pool="web") == 500
    assert ("secbeat_pool_last_decision_timestamp_seconds", (("pool", "gone"),)) not in samples(metrics)


def test_durations_name_their_trace_in_the_openmetrics_form_alone(metrics, make):
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    stage = Stage(name="boot", ended_at=make.start, seconds=1.5)
    metrics.operation_ended(make.operation(state="succeeded", stages=(stage,), traceparent=trace))
    assert f'# {{trace_id="{"a" * 32}"}} 1.5' in exposition.generate_latest(metrics.registry).decode()
    assert "trace_id" not in generate_latest(metrics.registry).decode()


def test_the_openmetrics_form_is_valid_too(metrics, make):
    metrics.pool(make.pool_view("web"))
    assert list(text_string_to_metric_families(exposition.generate_latest(metrics.registry).decode()))


async def test_the_scraper_gets_the_form_that_it_asks_for(metrics):
    listener = await listen(metrics_app(metrics.registry), "127.0.0.1:0")
    async with ClientSession() as session:
        async with session.get(f"{listener.url}/metrics") as plain:
            assert plain.headers["Content-Type"].startswith("text/plain")
            assert "secbeat_fleet_size_current 0.0" in await plain.text()
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with session.get(f"{listener.url}/metrics", headers=accept) as modern:
            assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await modern.text()).endswith("# EOF\n")
    await listener.close()
