"""The Phase 6 guide: defaults, payloads, steps and names. (Its commands as typed: tests/acceptance/guide.)"""

from __future__ import annotations

import asyncio
import json

import pytest

from orchestrator.metrics import Metrics
from secbeat.errors import ConfigError
from secbeat.service import Stop
from secbeat.settings import ManagementSettings, Settings, load
from secbeat.testing.waiting import until
from tests.contract import raw
from tests.contract.original.programs import TOKEN, Orchestrator, Server

row = pytest.mark.row

ORCHESTRATOR_TOML = """
provisioning_webhook_url = "http://localhost:8000/provision"
min_fleet_size = 1
scale_up_cpu_threshold = 0.80     # 80%
scale_down_cpu_threshold = 0.30   # 30%
scaling_check_interval_seconds = 60
"""
PAYLOAD = {
    "reason": "HIGH_FLEET_CPU_LOAD",
    "timestamp": "2025-07-12T10:30:45Z",
    "fleet_metrics": {"active_nodes": 2, "avg_cpu_usage": 0.85, "avg_memory_usage": 0.65, "total_connections": 150},
}
TERMINATE = {"reason": "LOW_FLEET_CPU_LOAD", "timestamp": "2025-07-12T10:30:45Z", "grace_period_seconds": 60}


def asked(body=None, token=TOKEN):
    return raw.original("POST", "/control/terminate", TERMINATE if body is None else body, token=token)


async def a_fleet(fleet, size, **pool):
    ours = await fleet(pool={"min": size, "warmup_seconds": 0, "scale_down_cooldown_seconds": 0, **pool})
    await ours.until(lambda: len(ours.world.active()) == size)
    await ours.until(lambda: not ours.core.operations(open_only=True))
    ours.world.receiver.calls.clear()
    return ours


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(key, value, marks=row(f"guide.config.{key}.from-client"), id=key)
        for key, value in (
            ("provisioning_webhook_url", "http://localhost:8000/provision"),
            ("min_fleet_size", 1),
            ("scale_up_cpu_threshold", 0.80),
            ("scale_down_cpu_threshold", 0.30),
            ("scaling_check_interval_seconds", 60),
        )
    ],
)
def test_a_default_of_the_orchestrator_is_the_guides(key, value):
    settings = Settings()
    pool = {"min_fleet_size": "min"}.get(key, key)
    assert getattr(settings.orchestrator, key) == value
    assert getattr(settings.pools["default"], pool, value) == value


@row("guide.config.orchestrator_toml.from-client")
def test_the_guides_file_is_read_as_it_stands(tmp_path):
    path = tmp_path / "orchestrator.toml"
    path.write_text(ORCHESTRATOR_TOML.replace("0.80", "0.75").replace("min_fleet_size = 1", "min_fleet_size = 3"))
    pool = load(path).settings.pools["default"]
    assert (pool.min, pool.scale_up_cpu_threshold, pool.scale_down_cpu_threshold) == (3, 0.75, 0.30)


@row("guide.config.management.enabled.from-client")
def test_the_management_api_is_on():
    assert ManagementSettings().enabled is True


@row("guide.config.management.listen_addr.from-client")
def test_the_management_api_listens_on_loopback_unless_told_otherwise(tmp_path):
    from node import checks
    from secbeat.settings import NodeSettings

    assert ManagementSettings().listen_addr == "127.0.0.1:9999"
    with pytest.raises(ConfigError) as refused:
        checks.check_addresses(NodeSettings(), ManagementSettings(listen_addr="0.0.0.0:9999"))
    assert refused.value.code == "BIND_INSECURE"
    checks.check_addresses(NodeSettings(), ManagementSettings(listen_addr="0.0.0.0:9999", allow_plaintext=True))


@row("guide.config.management.auth_token.from-client")
def test_the_published_token_works_only_knowingly(tmp_path):
    path = tmp_path / "default.toml"
    path.write_text(f'[management]\nauth_token = "{TOKEN}"\n')
    with pytest.raises(ConfigError, match="published token"):
        load(path)
    path.write_text(f'[management]\nauth_token = "{TOKEN}"\nallow_default_token = true\n')
    assert load(path).settings.management.auth_token.get_secret_value() == TOKEN


@row("guide.config.management.shutdown_grace_period.from-client")
def test_the_grace_period_is_a_minute():
    assert ManagementSettings().shutdown_grace_period == 60


@row("guide.config.production_token.from-client")
def test_a_command_in_place_of_a_token_is_refused(tmp_path):
    path = tmp_path / "default.toml"
    path.write_text('[management]\nauth_token = "$(openssl rand -hex 32)"\n')
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert "auth_token" in str(refused.value.lines())


# ---------------------------------------------------------------- scaling


@row("guide.scaling.up.to-receiver")
async def test_two_checks_over_the_threshold_call_the_webhook(fleet):
    ours = await a_fleet(fleet, 1, scaling_check_interval_seconds=60)
    ours.world.load(0.81)
    await ours.world.clock.advance(61)
    assert ours.world.receiver.calls == []
    await ours.world.clock.advance(60)
    assert [call.body["reason"] for call in ours.world.receiver.calls] == ["HIGH_FLEET_CPU_LOAD"]


@row("guide.scaling.down.to-node")
async def test_five_checks_under_the_threshold_terminate_one_node_and_never_go_below_the_minimum(fleet):
    ours = await a_fleet(fleet, 2, scaling_check_interval_seconds=60)
    ours.world.load(0.29)
    await ours.world.clock.advance(600)
    assert ours.world.nodes.terminated == [], "the fleet is as small as it may be"
    pools = ours.core.settings.pools
    pools["default"] = pools["default"].model_copy(update={"min": 1})
    await ours.until(lambda: ours.world.nodes.terminated, seconds=301)
    assert ours.world.nodes.terminated[0][1].reason == "LOW_FLEET_CPU_LOAD"
    await ours.world.clock.advance(900)
    assert len(ours.world.active()) == 1


@row("guide.scaling.victim.to-node")
async def test_the_node_with_the_fewest_connections_is_terminated(fleet):
    ours = await a_fleet(fleet, 3, scaling_check_interval_seconds=10)
    nodes = list(ours.world.nodes.all.values())
    for node, connections in zip(nodes, (4, 7, 3), strict=True):
        node.connections = connections
    ours.world.load(0.1)
    pools = ours.core.settings.pools
    pools["default"] = pools["default"].model_copy(update={"min": 2})
    await ours.until(lambda: ours.world.nodes.terminated)
    assert [node_id for node_id, _ in ours.world.nodes.terminated] == [nodes[2].node_id]


# ---------------------------------------------------------------- webhook


@row("guide.webhook.payload.to-receiver")
async def test_our_payload_has_the_guides_keys_first(fleet):
    ours = await a_fleet(fleet, 2, scaling_check_interval_seconds=10)
    ours.world.load(0.85)
    await ours.until(lambda: ours.world.receiver.calls)
    sent = ours.world.receiver.calls[0].body
    assert list(sent) == [*PAYLOAD, "operation"]
    assert list(sent["fleet_metrics"]) == list(PAYLOAD["fleet_metrics"])
    assert (sent["reason"], sent["fleet_metrics"]["active_nodes"]) == ("HIGH_FLEET_CPU_LOAD", 2)
    assert sent["fleet_metrics"]["avg_cpu_usage"] == pytest.approx(0.85)


@row("guide.webhook.payload.from-orchestrator")
async def test_the_guides_payload_is_accepted(provisioner):
    ours = await provisioner()
    assert (await ours.provision(PAYLOAD)).status == 202
    assert [job.action for job in await ours.jobs()] == ["create"]


@row("guide.webhook.receiver.to-receiver")
async def test_the_guides_own_receiver_is_enough(fleet):
    ok = raw.Message("HTTP/1.0 200 OK", (("Content-Length", "2"),), b"OK")
    server = await Server(lambda _: ok).start()
    ours = await fleet(pool={"min": 1}, real_webhooks={}, provisioning_webhook_url=f"{server.url}/provision")
    await ours.until(lambda: ours.world.operations()[0].state == "booting")
    await ours.register()
    await ours.beat(ours.world.operations()[0].node_id)
    await ours.until(lambda: ours.world.operations()[0].state == "succeeded")
    assert len(server.requests) == 1
    await server.close()


@row("guide.webhook.tower.to-receiver")
async def test_a_bearer_token_goes_with_each_webhook(fleet):
    server = await Server(lambda _: raw.Message("HTTP/1.1 201 Created", (("content-length", "0"),), b"")).start()
    ours = await fleet(
        pool={"min": 1}, real_webhooks={"bearer": "tower-token"}, provisioning_webhook_url=f"{server.url}/launch/"
    )
    await ours.until(lambda: server.requests)
    assert server.requests[0].first == "POST /launch/ HTTP/1.1"
    assert server.requests[0].header("authorization") == "Bearer tower-token"
    await server.close()


# ---------------------------------------------------------------- terminate and the seven steps


@row("guide.terminate.authentication.from-orchestrator")
async def test_terminate_needs_the_bearer_token(node):
    ours = await node()
    assert (await ours.ask(asked(token="another"))).status == 401
    assert (await ours.ask(asked())).status == 202


@row("guide.terminate.request.from-orchestrator")
async def test_the_guides_request_begins_the_drain(node):
    ours = await node()
    await ours.ask(asked())
    assert (ours.drain.draining, ours.drain.reason) == (True, "LOW_FLEET_CPU_LOAD")


@row("guide.terminate.response.from-orchestrator")
async def test_the_answer_is_the_guides(node):
    answer = await (await node()).ask(asked())
    assert answer.body.decode() == json.dumps(
        {
            "success": True,
            "message": "Graceful shutdown initiated with 60 second grace period",
            "grace_period_seconds": 60,
        },
        separators=(",", ":"),
    )


@row("guide.shutdown.1_authentication.from-orchestrator")
async def test_step_1_a_wrong_token_begins_nothing(node):
    ours = await node()
    await ours.ask(asked(token="wrong"))
    assert not ours.drain.draining


@row("guide.shutdown.2_accept.from-orchestrator")
async def test_step_2_the_answer_is_202_before_anything_has_ended(node):
    ours = await node()
    ours.plane.in_flight = 5
    ours.run()
    assert (await ours.ask(asked())).status == 202
    assert ours.drain.phase == "propagating"


@row("guide.shutdown.3_signal.from-orchestrator")
async def test_step_3_the_node_knows_and_says_so(node):
    ours = await node()
    await ours.ask(asked())
    assert ours.plane.draining
    assert ours.agent.status == "Draining"


@row("guide.shutdown.4_stop_accepting.from-orchestrator")
async def test_step_4_the_listener_closes_once_load_balancers_had_time_to_notice(node):
    ours = await node()
    ours.run()
    await ours.ask(asked())
    await ours.clock.advance(9)
    assert not ours.plane.closed
    await ours.clock.advance(2)
    assert ours.plane.closed


@row("guide.shutdown.5_grace.from-orchestrator")
async def test_step_5_what_is_in_flight_finishes_within_the_grace(node):
    ours = await node()
    waited = []

    async def settle(seconds):
        waited.append(seconds)
        await ours.clock.sleep(20)
        return 0

    ours.plane.settle = settle
    ours.run()
    await ours.ask(asked())
    await ours.clock.advance(25)
    assert ours.drain.phase == "closing"
    await ours.clock.advance(10)
    assert (ours.drain.phase, waited) == ("done", [50.0])


@row("guide.shutdown.6_final_heartbeat.to-orchestrator")
async def test_step_6_the_last_heartbeat_says_terminating(node):
    original = await Orchestrator().start()
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    await ours.ask(asked())
    await ours.until(lambda: ours.drain.phase == "done")
    await ours.agent.goodbye()
    assert original.beats[0].status == "Active"
    assert original.beats[-1].status == "Terminating"
    await original.close()


@row("guide.shutdown.7_exit.from-orchestrator")
async def test_step_7_the_process_ends_with_zero(tmp_path, monkeypatch):
    from node.app import main

    monkeypatch.chdir(tmp_path)
    original = await Orchestrator().start()
    path = tmp_path / "node.toml"
    path.write_text(
        f'[node]\nserver_url = "{original.url}"\nstate_dir = "{tmp_path}/state"\nlisten_addr = "127.0.0.1:0"\n'
        'metrics_addr = "127.0.0.1:0"\nregister_jitter_seconds = 0\npropagation_seconds = 0\n'
        f'[management]\nauth_token = "a-token-of-this-node"\nlisten_addr = "127.0.0.1:{free_port()}"\n'
        '[nats]\nurl = "nats://127.0.0.1:9"\n'
    )
    loaded = load(path)
    port = int(loaded.settings.management.listen_addr.rpartition(":")[2])
    running = asyncio.create_task(main(Stop(), loaded))
    async with asyncio.timeout(30):
        await until(lambda: original.beats)
        answer = await raw.ask(port, asked({**TERMINATE, "grace_period_seconds": 1}, token="a-token-of-this-node"))
        assert answer.status == 202
        assert await running == 0
    assert original.beats[-1].status == "Terminating"
    await original.close()


def free_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


# ---------------------------------------------------------------- routes


@row("guide.route.fleet_stats.from-client")
async def test_fleet_stats_has_scaling_metrics(fleet):
    shown = (await (await a_fleet(fleet, 1)).get("/api/v1/fleet/stats")).json()
    pool = shown["scaling"]["pools"]["default"]
    assert (pool["min"], pool["policy"]["scale_up_cpu_threshold"]) == (1, 0.80)
    assert shown["active_nodes"] == 1


@row("guide.route.nodes.from-client")
async def test_nodes_lists_each_with_its_status(fleet):
    nodes = (await (await a_fleet(fleet, 2)).get("/api/v1/nodes")).json()
    assert [node["status"] for node in nodes] == ["Active", "Active"]
    assert all(node["metrics"] for node in nodes)


@row("guide.route.block_ip.from-client")
async def test_an_address_is_blocked(fleet):
    ours = await fleet()
    answer = await ours.post("/api/v1/rules/block_ip", {"ip": "203.0.113.7", "reason": "test"})
    assert (answer.status, answer.json()["success"]) == (200, True)


@row("guide.route.blocked_ips.from-client")
async def test_blocked_addresses_are_listed(fleet):
    ours = await fleet()
    await ours.post("/api/v1/rules/block_ip", {"ip": "203.0.113.7", "reason": "test"})
    assert (await ours.get("/api/v1/rules/blocked_ips")).json()["blocked_ips"][0][0] == "203.0.113.7"


@row("guide.route.terminate.from-client")
async def test_terminate_is_the_only_route_of_the_guide_on_the_management_port(node):
    ours = await node()
    assert (await ours.ask(raw.original("GET", "/control/terminate", token=TOKEN))).status == 405
    assert (await ours.ask(asked())).status == 202


@row("guide.testing.unauthorized.from-client")
async def test_the_guides_curl_without_a_token_is_401(node):
    ours = await node()
    curl = (("Host", "127.0.0.1:9999"), ("User-Agent", "curl/7.88.1"), ("Accept", "*/*"))
    answer = await ours.ask(raw.Message("POST /control/terminate HTTP/1.1", curl, b""))
    assert (answer.status, answer.body) == (401, b"")


# ---------------------------------------------------------------- metrics


@pytest.mark.parametrize(
    ("happens", "names"),
    [
        pytest.param(
            lambda metrics: metrics.scaling_decision("scale_up", "default"),
            ['secbeat_scaling_decisions_total{action="scale_up"}'],
            marks=row("guide.metrics.scale_up.from-client"),
            id="scale_up",
        ),
        pytest.param(
            lambda metrics: metrics.scaling_decision("scale_down", "default"),
            ['secbeat_scaling_decisions_total{action="scale_down"}'],
            marks=row("guide.metrics.scale_down.from-client"),
            id="scale_down",
        ),
        pytest.param(
            lambda metrics: metrics.node_terminated("default"),
            ["secbeat_node_terminations_total"],
            marks=row("guide.metrics.node_terminations.from-client"),
            id="node_terminations",
        ),
        pytest.param(
            lambda metrics: (metrics.webhook_call(True, "default"), metrics.webhook_call(False, "default")),
            ['secbeat_webhook_calls_total{status="success"}', 'secbeat_webhook_calls_total{status="failure"}'],
            marks=row("guide.metrics.webhook_calls.from-client"),
            id="webhook_calls",
        ),
    ],
)
def test_a_metric_of_the_guide_counts(happens, names):
    from prometheus_client import generate_latest

    def values(metrics):
        text = generate_latest(metrics.registry).decode()
        return [line.rpartition(" ")[2] for name in names for line in text.splitlines() if line.startswith(f"{name} ")]

    metrics = Metrics()
    assert values(metrics) == ["0.0"] * len(names)
    happens(metrics)
    assert values(metrics) == ["1.0"] * len(names)


@row("guide.metrics.fleet_size.from-client")
async def test_the_fleet_size_is_the_number_of_active_nodes(fleet):
    from prometheus_client import generate_latest

    ours = await a_fleet(fleet, 2)
    metrics = ours.core.context.metrics
    metrics.bind(pools=ours.core.pools)
    assert "secbeat_fleet_size_current 2.0" in generate_latest(metrics.registry).decode()
