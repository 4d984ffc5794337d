"""Prometheus: the original's names."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from node import metrics as node_metrics
from orchestrator.testing import FakeNode
from secbeat import ids
from secbeat.api import listen, metrics_app
from secbeat.wire.heartbeat import LegacyHeartbeat
from tests.contract import raw
from tests.contract.ours.fleet import IDENTITY, heartbeat
from tests.contract.ours.node import Totals

row = pytest.mark.row

ORCHESTRATOR_COUNTERS = [
    "orchestrator_nodes_registered_total", "orchestrator_heartbeats_received_total",
    "orchestrator_heartbeats_unknown_node", "orchestrator_nodes_terminated_total",
    "orchestrator_nodes_marked_dead_total", "orchestrator_nodes_gracefully_terminated_total",
    "orchestrator_unexpected_node_failures_total", "orchestrator_self_healing_webhooks_sent_total",
    "orchestrator_self_healing_webhook_errors_total",
]  # fmt: skip
NODE_COUNTERS = {
    "https_requests_received": 40, "requests_proxied": 30, "tls_handshakes_completed": 20, "http_errors_total": 6,
    "blocked_requests_total": 5, "l7_proxy_blocked_blacklist": 5, "l7_proxy_blocked_connection_limit": 2,
}  # fmt: skip
NODE_COUNTERS_LATER = [
    "tls_handshake_errors", "ddos_events_detected_total", "waf_requests_blocked", "waf_events_blocked_total",
    "dynamic_blocks_total", "l7_proxy_blocked_rate_limit", "l7_proxy_blocked_global_limit",
    "ddos_blocked_manual_blacklist", "ddos_blocked_blacklist", "ddos_blocked_global_limit",
    "ddos_blocked_connection_limit", "ddos_blocked_rate_limit", "ddos_blacklist_additions", "waf_blocked_oversized",
    "waf_blocked_sql_injection", "waf_blocked_xss", "waf_blocked_path_traversal", "waf_blocked_command_injection",
    "waf_blocked_custom_pattern",
]  # fmt: skip


class Scrape:
    """One scrape: sample values by name (and labels), and the text."""

    def __init__(self, answer):
        assert answer.status == 200
        self.text = answer.body.decode()
        self.values = {}
        for line in self.text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                self.values[name] = float(value)
        self.families = list(text_string_to_metric_families(self.text))


async def scrape(registry, path="/metrics"):
    listener = await listen(metrics_app(registry), "127.0.0.1:0", shutdown_timeout=0.1)
    try:
        return await raw.ask(listener.port, raw.original("GET", path))
    finally:
        await listener.close()


def bound(ours):
    made = ours.core.context.metrics
    registry = ours.core.registry
    made.bind(pools=ours.core.pools, fleet=registry.stats, heartbeats=lambda: registry.counters)
    return made.registry


async def of_node(ours):
    return Scrape(await scrape(node_metrics.registry(ours.plane, ours.facts.sampler, ours.drain)))


@row("9.orchestrator.counters.from-client")
async def test_the_nine_counters_of_the_original_count(fleet):
    ours = await fleet(pool={"min": 1, "scaling_check_interval_seconds": 10})
    await ours.until(ours.world.active)
    node_id = await ours.register()
    await ours.beat(node_id)
    ours.core.registry.on_legacy(LegacyHeartbeat.model_validate(heartbeat(IDENTITY)), unit="percent")
    await ours.until(lambda: ours.state(node_id) in {"failed", None}, seconds=600)
    await ours.until(lambda: "UNEXPECTED_NODE_FAILURE" in {op.reason for op in ours.world.operations("create")})
    leaving = await ours.register()
    ours.world.nodes.all[leaving] = FakeNode(leaving, ids.new_boot_id(), "default")
    await ours.beat(leaving)
    await ours.post(f"/api/v1/nodes/{leaving}/terminate", token="operator-token")
    await ours.until(lambda: ours.state(leaving) is None and ours.state(node_id) is None, seconds=600)
    found = Scrape(await scrape(bound(ours))).values
    assert found.pop("orchestrator_heartbeats_received_total") > 4
    joined = len(ours.world.operations("create")) + 2
    assert {name: found.get(name) for name in ORCHESTRATOR_COUNTERS} == {
        "orchestrator_nodes_registered_total": joined,
        "orchestrator_heartbeats_received_total": None,
        "orchestrator_heartbeats_unknown_node": 1,
        "orchestrator_nodes_terminated_total": 1,
        "orchestrator_nodes_marked_dead_total": 1,
        "orchestrator_nodes_gracefully_terminated_total": 2,
        "orchestrator_unexpected_node_failures_total": 1,
        "orchestrator_self_healing_webhooks_sent_total": 1,
        "orchestrator_self_healing_webhook_errors_total": 0,
    }


@row("9.orchestrator.gauges.from-client")
async def test_the_two_gauges_follow_the_fleet(fleet):
    ours = await fleet()
    await ours.register()
    await ours.beat(await ours.register())
    found = Scrape(await scrape(bound(ours))).values
    assert (found["orchestrator_total_nodes"], found["orchestrator_active_nodes"]) == (2, 1)


@row("9.orchestrator.recorded.from-client")
async def test_every_name_of_the_recorded_scrape_is_there_with_its_type(fleet):
    ours = await fleet()
    found = Scrape(await scrape(bound(ours)))
    types = _types(found.text)
    for name, kind in _types(raw.recorded("orchestrator_metrics.txt").decode()).items():
        assert name in found.values, name
        # The client library lets no counter be without the suffix _total: the one that lacks it is untyped.
        assert types.get(name) == (kind if kind == "gauge" or name.endswith("_total") else "untyped"), name


def _types(text):
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


@row("9.orchestrator.any_path.from-client")
async def test_only_one_path_answers(fleet):
    registry = bound(await fleet())
    assert (await scrape(registry, "/anything")).status == 404


@row("9.orchestrator.help.from-client")
async def test_every_family_has_a_help_line(fleet):
    found = Scrape(await scrape(bound(await fleet())))
    assert found.families
    assert [family.name for family in found.families if not family.documentation] == []


@row("9.orchestrator.first_increment.from-client")
async def test_a_counter_is_zero_before_it_counts(fleet):
    found = Scrape(await scrape(bound(await fleet()))).values
    assert {found[name] for name in ORCHESTRATOR_COUNTERS} == {0.0}


@row("9.node.counters.from-client")
async def test_the_nodes_counters_have_the_originals_names(node):
    ours = await node()
    ours.plane.totals = Totals(
        requests=40, proxied=30, handshakes=20, http_errors=6, blocked=5, over_limit=2, connections=3
    )
    found = (await of_node(ours)).values
    assert {name: found.get(name) for name in NODE_COUNTERS} == NODE_COUNTERS


@row("9.node.counters_waf.from-client")
@pytest.mark.parametrize("name", NODE_COUNTERS_LATER)
async def test_what_the_data_plane_does_not_count_is_absent(node, name):
    assert name not in (await of_node(await node())).text


@row("9.node.gauges.from-client")
async def test_the_nodes_gauges_have_the_originals_names(node):
    ours = await node()
    ours.plane.totals = Totals(connections=3, blocklist_size=8)
    found = (await of_node(ours)).values
    assert (found["active_connections"], found["ddos_blacklist_size"]) == (3, 8)


@row("9.node.gauges_ddos.from-client")
async def test_gauges_of_the_ddos_filter_are_absent(node):
    text = (await of_node(await node())).text
    assert "ddos_total_connections" not in text
    assert "ddos_active_ips" not in text


@row("9.node.summary.from-client")
async def test_the_wafs_summary_is_absent(node):
    assert "waf_inspection_duration_seconds" not in (await of_node(await node())).text


@row("9.node.twice.from-client")
async def test_no_name_is_exposed_twice(node):
    def names(text):
        return re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)

    recorded = names(raw.recorded("node_metrics.txt").decode())
    assert len(recorded) != len(set(recorded))
    ours = names((await of_node(await node())).text)
    assert len(ours) == len(set(ours))


@row("9.guide.from-client")
async def test_the_four_names_of_the_guide_are_there_with_its_labels_only(fleet):
    found = Scrape(await scrape(bound(await fleet()))).values
    ours = {name for name in found if name.startswith((
        "secbeat_scaling_decisions", "secbeat_node_terminations", "secbeat_fleet_size", "secbeat_webhook_calls",
    ))}  # fmt: skip
    assert ours == {
        'secbeat_scaling_decisions_total{action="scale_up"}', 'secbeat_scaling_decisions_total{action="scale_down"}',
        "secbeat_node_terminations_total", "secbeat_fleet_size_current",
        'secbeat_webhook_calls_total{status="success"}', 'secbeat_webhook_calls_total{status="failure"}',
    }  # fmt: skip


@row("9.phase7.from-client")
@pytest.mark.parametrize(
    "name", ["ml_predictions_made_total", "prediction_accuracy_ratio", "predictive_scale_ups_total"]
)
async def test_no_metric_of_a_predictor_is_claimed(fleet, name):
    assert name not in Scrape(await scrape(bound(await fleet()))).text
