"""The orchestrator's HTTP API, ours in the place of the original's, and our node in front of the original's."""

from __future__ import annotations

import json
import uuid

import pytest

from secbeat.settings import OrchestratorSettings
from secbeat.store import Unavailable
from tests.contract import raw
from tests.contract.original import serde
from tests.contract.original.programs import Orchestrator
from tests.contract.ours.fleet import IDENTITY, METRICS, heartbeat, registration

row = pytest.mark.row
STATUSES = ["Active", "Draining", "Terminating", "Dead", "Registered"]


def replay(name, **replaced):
    """A recorded request, with other values in its path or body."""
    message = raw.request(name)
    first, body = message.first, message.body
    for before, after in replaced.items():
        first, body = first.replace(before, after), body.replace(before.encode(), after.encode())
    return raw.Message(first, message.headers, body)


@pytest.fixture
async def original():
    server = await Orchestrator().start()
    yield server
    await server.close()


@row("4.bind.from-client")
def test_the_addresses_are_the_originals():
    settings = OrchestratorSettings()
    assert (settings.listen_addr, settings.metrics_addr) == ("127.0.0.1:3030", "127.0.0.1:9091")


@row("4.authentication.from-client")
async def test_loopback_needs_no_token_but_for_terminate(fleet):
    ours = await fleet()
    node_id = await ours.register()
    for path in ("fleet/stats", "nodes", f"nodes/{node_id}", "dashboard/summary", "health", "rules/blocked_ips"):
        assert (await ours.get(f"/api/v1/{path}")).status == 200
    assert (await ours.ask(raw.recorded("block_ip.request.bin"))).status == 200
    assert (await ours.post(f"/api/v1/nodes/{node_id}/terminate")).status == 401
    assert ours.world.operations("destroy") == []


@row("4.cors.from-client")
async def test_there_is_no_cors_header(fleet):
    ours = await fleet()
    page = raw.Message("GET /api/v1/nodes HTTP/1.1", (("Host", "localhost"), ("Origin", "http://evil.example")), b"")
    answer = await ours.ask(page)
    assert raw.response("nodes").header("access-control-allow-origin") == "*"
    assert not [name for name in answer.names if name.lower().startswith("access-control")]


@row("4.configuration.from-client")
async def test_addresses_and_webhook_are_configurable():
    settings = OrchestratorSettings(listen_addr="127.0.0.1:1", provisioning_webhook_url="http://10.0.0.1/x")
    assert (settings.listen_addr, settings.provisioning_webhook_url) == ("127.0.0.1:1", "http://10.0.0.1/x")


# ---------------------------------------------------------------- register


@row("4.register.request.from-node")
async def test_a_registration_becomes_a_node_with_what_it_said(fleet):
    ours = await fleet()
    config = {"node_type": "edge", "region": "eu", "tags": ["a", "b"]}
    shown = await ours.node(await ours.register(public_ip="10.0.0.9", config=config))
    assert (shown["public_ip"], shown["config"], shown["status"]) == ("10.0.0.9", config, "Registered")
    for missing in ("public_ip", "config"):
        body = {key: value for key, value in registration().items() if key != missing}
        assert (await ours.post("/api/v1/nodes/register", body)).status == 422
    no_tags = registration(config={"node_type": "edge"})
    assert (await ours.post("/api/v1/nodes/register", no_tags)).status == 422


@row("4.register.request.to-orchestrator")
async def test_the_original_reads_our_nodes_registration(node, original):
    ours = await node(server_url=original.url, public_ip="10.0.0.9")
    ours.run()
    await ours.until(lambda: original.registered)
    (read,) = original.registered
    assert (str(read.public_ip), read.config.node_type) == ("10.0.0.9", "mitigation-node")


@row("4.register.response.from-node")
async def test_the_answer_has_the_originals_keys_in_its_order_and_nothing_else(fleet):
    ours = await fleet()
    answer = await ours.post("/api/v1/nodes/register", registration())
    original = raw.response("node_session")
    assert (answer.status, answer.header("content-type").split(";")[0]) == (200, original.header("content-type"))
    assert list(answer.json()) == list(original.json()) == ["node_id", "heartbeat_interval", "endpoints"]
    assert list(answer.json()["endpoints"]) == list(original.json()["endpoints"])
    assert type(answer.json()["heartbeat_interval"]) is int
    assert serde.Registered.read(answer.body)


@row("4.register.response.to-orchestrator")
async def test_our_node_takes_its_id_and_interval_from_the_recorded_answer(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: ours.membership.member)
    assert ours.membership.member.node_id == original.known[0]
    assert ours.membership.member.heartbeat_seconds == 10.0


@row("4.register.new_uuid.from-node")
async def test_each_registration_is_a_node_but_a_silent_one_at_the_same_place_comes_back(fleet):
    ours = await fleet()
    first, second = await ours.register(), await ours.register()
    assert first != second
    assert await ours.beat(first) == await ours.beat(second) == 200
    await ours.world.clock.advance(200)
    assert await ours.beat(second) == 200
    assert await ours.register() == first
    never_beat = await ours.register()
    await ours.world.clock.advance(95)
    await ours.register()
    assert ours.state(never_beat) is None


@row("4.register.control_url.from-node")
async def test_the_control_url_is_not_routed(fleet):
    ours = await fleet()
    answer = await ours.post("/api/v1/nodes/register", registration())
    path = answer.json()["endpoints"]["control_url"].partition("3031")[2]
    assert path == f"/api/v1/nodes/{answer.json()['node_id']}/commands"
    assert (await ours.post(path, {})).status == raw.response("commands_unrouted").status == 404


@row("4.register.endpoints.from-node")
async def test_the_urls_are_those_by_which_the_node_found_us(fleet):
    ours = await fleet()
    message = raw.original("POST", "/api/v1/nodes/register", registration())
    elsewhere = tuple((name, "10.1.2.3:3030" if name == "host" else value) for name, value in message.headers)
    answer = await ours.ask(raw.Message(message.first, elsewhere, message.body))
    assert answer.json()["endpoints"]["heartbeat_url"] == "http://10.1.2.3:3030/api/v1/nodes/heartbeat"


# ---------------------------------------------------------------- heartbeat


@row("4.heartbeat.request.from-node")
async def test_every_field_of_a_heartbeat_is_required(fleet):
    ours = await fleet()
    node_id = await ours.register()
    whole = heartbeat(node_id)
    for missing in whole:
        body = {key: value for key, value in whole.items() if key != missing}
        assert (await ours.post("/api/v1/nodes/heartbeat", body)).status == 422, missing
    for missing in METRICS:
        body = whole | {"metrics": {key: value for key, value in METRICS.items() if key != missing}}
        assert (await ours.post("/api/v1/nodes/heartbeat", body)).status == 422, missing
    assert (await ours.node(node_id))["metrics"] is None
    assert (await ours.post("/api/v1/nodes/heartbeat", whole)).status == 200


@row("4.heartbeat.request.to-orchestrator")
async def test_the_original_reads_our_nodes_heartbeat(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: len(original.beats) >= 2)
    assert {str(beat.node_id) for beat in original.beats} == set(original.known)


@row("4.heartbeat.known.from-node")
async def test_a_known_nodes_heartbeat_is_an_empty_200(fleet):
    ours = await fleet()
    answer = await ours.post("/api/v1/nodes/heartbeat", heartbeat(await ours.register()))
    original = raw.response("node_session", 1)
    assert (answer.status, answer.body, answer.first) == (200, original.body, original.first)
    assert answer.header("content-length") == original.header("content-length") == "0"


@row("4.heartbeat.unknown.from-node")
async def test_an_unknown_node_is_adopted_from_legacy_nodes_and_404_from_elsewhere(fleet):
    ours = await fleet()
    assert (await ours.ask(replay("heartbeat_unknown"))).status == 200
    beat = raw.request("heartbeat_unknown").json()
    assert ours.state(beat["node_id"]) == "active"
    strict = await fleet(legacy_nodes=["10.0.0.0/8"])
    answer = await strict.ask(replay("heartbeat_unknown"))
    assert (answer.status, answer.body) == (404, raw.response("heartbeat_unknown").body)


@row("4.heartbeat.unknown.to-orchestrator")
async def test_our_node_that_is_not_known_any_more_registers_again(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    original.known.clear()
    await ours.until(lambda: len(original.registered) == 2 and str(original.beats[-1].node_id) in original.known)
    assert ours.membership.member.node_id == original.known[0]


@row("4.heartbeat.bad_status.from-node")
async def test_a_status_that_is_none_is_422(fleet):
    ours = await fleet()
    node_id = await ours.register()
    answer = await ours.ask(replay("heartbeat_bad_status", **{IDENTITY: node_id, "Starting": "Sleeping"}))
    assert answer.status == raw.response("heartbeat_bad_status").status
    assert answer.body.startswith(b"Failed to deserialize the JSON body into the target type: status: ")


# ---------------------------------------------------------------- nodes


@row("4.nodes.list.from-client")
async def test_the_list_is_a_bare_array_of_node_info(fleet):
    ours = await fleet()
    assert (await ours.get("/api/v1/nodes")).body == b"[]"
    node_id = await ours.register()
    await ours.beat(node_id)
    answer, original = await ours.ask(raw.recorded("nodes.request.bin")), raw.response("nodes")
    (shown,), (recorded,) = answer.json(), original.json()
    assert list(recorded) == list(shown)[: len(recorded)]
    assert list(shown["metrics"]) == list(recorded["metrics"])
    assert serde.NodeInfo.read(json.dumps(shown).encode()).node_id == uuid.UUID(node_id)


@row("4.nodes.one.from-client")
async def test_one_node_is_its_element_of_the_list(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat(node_id)
    (listed,) = (await ours.get("/api/v1/nodes")).json()
    answer = await ours.ask(replay("node_by_id", **{IDENTITY: node_id}))
    assert answer.json() == listed
    assert list(raw.response("node_by_id").json()) == list(answer.json())[:7]


@row("4.nodes.unknown.from-client")
async def test_an_unknown_node_is_an_empty_404(fleet):
    answer = await (await fleet()).ask(raw.recorded("node_404.request.bin"))
    original = raw.response("node_404")
    assert (answer.status, answer.body) == (original.status, original.body)


@row("4.nodes.bad_uuid.from-client")
async def test_a_node_id_that_is_none_is_400(fleet):
    answer = await (await fleet()).ask(raw.recorded("node_bad_uuid.request.bin"))
    assert answer.status == raw.response("node_bad_uuid").status == 400


@row("4.terminate.known.from-client")
async def test_terminate_is_an_empty_200_and_the_node_is_really_told(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat(node_id)
    answer = await ours.post(f"/api/v1/nodes/{node_id}/terminate", token="operator-token")
    original = raw.response("orch_terminate_marks_only")
    assert (answer.status, answer.body) == (original.status, original.body)
    await ours.until(lambda: ours.world.nodes.terminated)
    assert ours.world.nodes.terminated[0][0] == node_id
    assert (await ours.node(node_id))["status"] == "Draining"


@row("4.terminate.unknown.from-client")
async def test_terminating_an_unknown_node_is_an_empty_404(fleet):
    ours = await fleet()
    answer = await ours.post(f"/api/v1/nodes/{IDENTITY}/terminate", token="operator-token")
    original = raw.response("terminate_unknown")
    assert (answer.status, answer.body) == (original.status, original.body)


@pytest.mark.parametrize(
    ("place", "name"),
    [(0, "nodes_before_heartbeat"), (1, "nodes")],
    ids=["before the first heartbeat", "after it"],
)
@row("4.node_info.from-client")
async def test_node_info_has_the_originals_fields_and_types(fleet, place, name):
    ours = await fleet()
    node_id = await ours.register()
    if place:
        await ours.beat(node_id, **raw.response(name).json()[0]["metrics"])
    shown, recorded = await ours.node(node_id), raw.response(name).json()[0]
    assert shown["status"] == recorded["status"]
    assert shown["config"] == recorded["config"]
    if recorded["metrics"] is None:
        assert shown["metrics"] is None
        assert shown["last_heartbeat"] == shown["registered_at"]
        assert recorded["last_heartbeat"] == recorded["registered_at"]
    else:
        assert shown["metrics"] == pytest.approx(recorded["metrics"], abs=1e-6)


# ---------------------------------------------------------------- statistics


@row("4.fleet_stats.keys.from-client")
async def test_fleet_stats_has_the_originals_keys_first_and_percent(fleet):
    ours = await fleet()
    await ours.beat(await ours.register())
    shown = (await ours.ask(raw.recorded("fleet_stats.request.bin"))).json()
    recorded = raw.response("fleet_stats").json()
    assert list(shown) == [*recorded, "scaling"]
    assert {key: type(value) for key, value in shown.items() if key != "scaling"} == {
        key: type(value) for key, value in recorded.items()
    }
    assert (shown["total_nodes"], shown["active_nodes"]) == (1, 1)
    assert shown["avg_cpu_usage"] == pytest.approx(METRICS["cpu_usage"], abs=1e-5)


@row("4.fleet_stats.averages.from-client")
async def test_averages_leave_out_what_is_silent(fleet):
    ours = await fleet()
    gone, stays = await ours.register(), await ours.register()
    await ours.beat(gone, cpu_usage=90.0)
    await ours.world.clock.advance(200)
    await ours.beat(stays, cpu_usage=10.0)
    shown = (await ours.get("/api/v1/fleet/stats")).json()
    assert (shown["total_nodes"], shown["avg_cpu_usage"]) == (2, pytest.approx(10.0))


@row("4.dashboard.summary.from-client")
async def test_the_dashboard_summary_has_the_originals_eight_keys(fleet):
    ours = await fleet()
    await ours.beat(await ours.register(), total_requests=200, ddos_blocks=10, waf_blocks=40)
    shown = (await ours.get("/api/v1/dashboard/summary")).json()
    assert list(shown) == [
        "total_requests", "blocked_requests", "active_nodes", "cluster_health", "requests_per_minute", "total_pps",
        "block_rate", "timestamp",
    ]  # fmt: skip
    assert (shown["total_requests"], shown["active_nodes"], shown["total_pps"]) == (200, 1, 10)
    assert type(shown["requests_per_minute"]) is int
    assert type(shown["block_rate"]) is float
    assert serde.utc(shown["timestamp"])


@row("4.dashboard.health.from-client")
async def test_health_is_critical_degraded_or_healthy(fleet):
    ours = await fleet()

    async def health():
        return (await ours.get("/api/v1/dashboard/summary")).json()["cluster_health"]

    assert await health() == "critical"
    nodes = [await ours.register() for _ in range(4)]
    assert await health() == "critical"
    await ours.beat(nodes[0])
    assert await health() == "degraded"
    await ours.beat(nodes[1])
    assert await health() == "healthy"


@row("4.dashboard.attacks.from-client")
async def test_no_attack_is_made_up(fleet):
    assert (await (await fleet()).get("/api/v1/dashboard/attacks")).status == 404


# ---------------------------------------------------------------- rules


@row("4.block_ip.request.from-client")
async def test_the_recorded_block_is_in_force(fleet):
    ours = await fleet()
    await ours.ask(raw.recorded("block_ip.request.bin"))
    await ours.post("/api/v1/rules/block_ip", {"ip": "2001:db8::7", "reason": "x", "metadata": {"case": 7}})
    found = {record.ip: record for record in ours.rules.listing()}
    assert (found["203.0.113.7"].ttl_seconds, found["203.0.113.7"].reason) == (600, "manual test")
    assert found["2001:db8::7"].metadata == {"case": 7}
    for body in ({"ip": "203.0.113.8"}, {"reason": "x"}, {"ip": "nonsense", "reason": "x"}):
        assert (await ours.post("/api/v1/rules/block_ip", body)).status == 422


@row("4.block_ip.response.from-client")
async def test_a_block_is_answered_in_the_originals_words(fleet):
    answer = await (await fleet()).ask(raw.recorded("block_ip.request.bin"))
    shown, recorded = answer.json(), raw.response("block_ip").json()
    assert list(shown) == list(recorded)
    assert (shown["success"], shown["message"]) == (recorded["success"], recorded["message"])
    assert uuid.UUID(shown["command_id"])


@row("4.block_ip.default_ttl.from-client")
async def test_a_block_without_a_ttl_lasts_an_hour(fleet):
    ours = await fleet()
    await ours.post("/api/v1/rules/block_ip", {"ip": "203.0.113.9", "reason": "x"})
    (record,) = ours.rules.listing()
    assert record.ttl_seconds == 3600
    await ours.world.clock.advance(3599)
    assert len(ours.rules.listing()) == 1
    await ours.world.clock.advance(2)
    assert ours.rules.listing() == []


@row("4.block_ip.failure.from-client")
async def test_a_block_that_fails_is_200_and_says_so(fleet):
    ours = await fleet()
    ours.rules_bucket.next_error = Unavailable("away")
    answer = await ours.ask(raw.recorded("block_ip.request.bin"))
    shown = answer.json()
    assert (answer.status, shown["success"], shown["command_id"]) == (200, False, None)
    assert shown["message"].startswith("Failed to block IP 203.0.113.7")
    assert ours.rules.listing() == []


@row("4.blocked_ips.empty.from-client")
async def test_an_empty_blocklist_is_the_recorded_answer(fleet):
    answer = await (await fleet()).ask(raw.recorded("blocked_empty.request.bin"))
    assert answer.json() == raw.response("blocked_empty").json()


@row("4.blocked_ips.entry.from-client")
async def test_an_entry_of_the_blocklist_is_an_array_of_two(fleet):
    ours = await fleet()
    await ours.ask(raw.recorded("block_ip.request.bin"))
    shown = (await ours.ask(raw.recorded("blocked_ips.request.bin"))).json()
    recorded = raw.response("blocked_ips").json()
    assert list(shown) == list(recorded)
    assert shown["stats"] == recorded["stats"]
    ((address, entry),), ((original_address, original),) = shown["blocked_ips"], recorded["blocked_ips"]
    assert address == original_address
    assert list(entry) == list(original)
    assert serde.utc(entry.pop("blocked_at"))
    assert entry == {key: value for key, value in original.items() if key != "blocked_at"}


# ---------------------------------------------------------------- the rest


@row("4.health.from-client")
async def test_health_has_the_originals_keys_in_its_order(fleet):
    shown = (await (await fleet()).ask(raw.recorded("health.request.bin"))).json()
    recorded = raw.response("health").json()
    assert list(shown) == list(recorded)
    assert shown["status"] == recorded["status"]


@row("4.status.accepted.from-node")
@pytest.mark.parametrize("status", STATUSES)
async def test_every_status_of_the_original_is_accepted(fleet, status):
    ours = await fleet()
    assert await ours.beat(await ours.register(), status) == 200


@row("4.status.emitted.from-client")
async def test_no_other_status_is_ever_shown(fleet):
    ours = await fleet(pool={"min": 2})
    shown = set()
    await ours.until(lambda: len(ours.world.active()) == 2)
    node_id = await ours.register()
    for status in [*STATUSES, "Starting"]:
        await ours.beat(node_id, status)
        shown |= {one["status"] for one in (await ours.get("/api/v1/nodes")).json()}
    assert shown <= set(STATUSES)
    assert "Active" in shown


@row("4.status.starting.from-node")
async def test_starting_is_accepted(fleet):
    ours = await fleet()
    node_id = await ours.register()
    answer = await ours.ask(replay("heartbeat_bad_status", **{IDENTITY: node_id}))
    assert raw.response("heartbeat_bad_status").status == 422
    assert (answer.status, answer.body) == (200, b"")


@row("4.api_key.from-client")
async def test_the_header_of_the_documentation_is_no_token(fleet):
    ours = await fleet()
    node_id = await ours.register()
    sent = raw.original("POST", f"/api/v1/nodes/{node_id}/terminate")
    keyed = raw.Message(sent.first, (*sent.headers, ("X-SecBeat-API-Key", "operator-token")), b"")
    assert (await ours.ask(keyed)).status == 401


@row("4.not_routed.from-client")
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/policy", "/api/v1/scale", "/api/v1/threats", f"/api/v1/nodes/{IDENTITY}/metrics",
        "/api/v1/rules/deploy", "/api/v1/rules/active", "/api/v1/ready", "/api/v1/metrics/aggregate", "/api/block",
        "/api/wasm/deploy", "/health",
    ],
)  # fmt: skip
async def test_what_the_original_documents_and_lacks_is_not_here_either(fleet, path):
    assert (await (await fleet()).get(path, token="operator-token")).status == 404
