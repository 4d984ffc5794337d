"""The node's management API: an original's calls on ours, our calls on an original's."""

from __future__ import annotations

import json

import pytest

from secbeat.settings import ManagementSettings, NodeSettings
from tests.contract import raw
from tests.contract.original.programs import TOKEN
from tests.contract.ours.node import Totals

row = pytest.mark.row
CALL = "POST /control/terminate HTTP/1.1"


def get(path, token=TOKEN):
    return raw.original("GET", path, token=token)


def terminate(token=TOKEN, **changes):
    body = json.loads(raw.request("terminate").body) | changes
    return raw.original("POST", "/control/terminate", body, token=token)


@row("6.bind.from-orchestrator")
def test_the_management_api_is_on_9999():
    assert ManagementSettings().listen_addr == "127.0.0.1:9999"


@row("6.modes.from-orchestrator")
async def test_the_api_is_there_whatever_forwards_the_traffic(node):
    assert ManagementSettings().enabled
    assert (await (await node()).ask(get("/api/v1/status"))).json()["mode"] == "l7"


# ---------------------------------------------------------------- the token


async def refused(ours, sent):
    answer = await ours.ask(sent)
    assert (answer.status, answer.body) == (401, b"")
    assert not ours.drain.draining


@row("6.token.missing.from-orchestrator")
async def test_without_a_token_it_is_an_empty_401(node):
    assert raw.response("management_1").status == 401
    await refused(await node(), raw.recorded("management_1.request.bin"))


@row("6.token.wrong.from-orchestrator")
async def test_with_a_wrong_token_it_is_an_empty_401(node):
    assert raw.response("management_2").status == 401
    await refused(await node(), raw.recorded("management_2.request.bin"))


@row("6.token.every_path.from-orchestrator")
async def test_every_path_needs_the_token(node):
    ours = await node()
    await refused(ours, raw.recorded("management_3.request.bin"))
    for path in ("/health", "/metrics", "/nothing", "/docs", "/api/openapi.json"):
        await refused(ours, get(path, token=None))


@row("6.token.before_body.from-orchestrator")
async def test_the_token_is_checked_before_the_body(node):
    await refused(await node(), raw.original("POST", "/control/terminate", b"{not json", token="wrong"))


@row("6.token.case.from-orchestrator")
async def test_the_prefix_is_case_sensitive(node):
    ours = await node()
    sent = get("/health")
    headers = tuple((name, value.replace("Bearer", "bearer")) for name, value in sent.headers)
    await refused(ours, raw.Message(sent.first, headers, b""))
    assert (await ours.ask(sent)).status == 200


@row("6.unknown_path.from-orchestrator")
async def test_an_unknown_path_with_a_token_is_404(node):
    ours = await node()
    answer = await ours.ask(get("/nothing/here"))
    assert (answer.status, answer.json()["code"]) == (404, "NOT_FOUND")
    assert raw.response("management_4").status == 404
    assert (await ours.ask(raw.recorded("management_4.request.bin"))).status == 200


# ---------------------------------------------------------------- terminate


@row("6.terminate.ok.from-orchestrator")
async def test_terminate_is_202_with_the_recorded_body(node):
    ours = await node()
    answer = await ours.ask(raw.recorded("terminate.request.bin"))
    recorded = raw.response("terminate")
    assert (answer.status, recorded.status) == (202, 200)
    assert answer.body == recorded.body


@row("6.terminate.grace.from-orchestrator")
@pytest.mark.parametrize(("asked", "granted"), [(600, 60), (60, 60), (5, 5), (0, 0)])
async def test_the_granted_grace_is_the_smaller_one(node, asked, granted):
    answer = (await (await node()).ask(terminate(grace_period_seconds=asked))).json()
    assert answer["grace_period_seconds"] == granted
    assert answer["message"] == f"Graceful shutdown initiated with {granted} second grace period"


@row("6.terminate.timestamp.from-orchestrator")
@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-23T17:54:53.424796998Z"])
async def test_the_timestamp_is_any_text(node, text):
    assert (await (await node()).ask(terminate(timestamp=text))).status == 202


@row("6.terminate.missing_field.from-orchestrator")
async def test_a_missing_field_is_422_and_nothing_begins(node):
    ours = await node()
    answer = await ours.ask(raw.recorded("management_5.request.bin"))
    assert answer.status == raw.response("management_5").status == 422
    for field in ("reason", "timestamp", "grace_period_seconds"):
        body = {key: value for key, value in terminate().json().items() if key != field}
        assert (await ours.ask(raw.original("POST", "/control/terminate", body, token=TOKEN))).status == 422
    assert not ours.drain.draining


@row("6.terminate.effect.from-orchestrator")
async def test_a_node_that_is_told_to_go_serves_on_then_closes_then_waits_for_what_is_in_flight(node):
    ours = await node()
    ours.run()
    assert (await ours.ask(raw.recorded("terminate.request.bin"))).status == 202
    assert (ours.plane.draining, ours.plane.closed) == (True, False)
    assert (await ours.ask(get("/ready"))).status == 503
    await ours.until(lambda: ours.plane.closed)
    assert ours.clock.monotonic() >= 9.5
    await ours.until(lambda: ours.drain.phase == "done")


@row("6.call.from-orchestrator")
async def test_the_recorded_call_of_the_originals_resource_manager_begins_a_drain(node):
    ours = await node()
    sent = raw.request("terminate")
    assert sent.names == ["authorization", "content-type", "accept", "host", "content-length"]
    answer = await ours.ask(raw.recorded("terminate.request.bin"))
    assert 200 <= answer.status < 300
    assert (ours.drain.draining, ours.drain.reason) == (True, "LOW_FLEET_CPU_LOAD")


# ---------------------------------------------------------------- what it shows


@row("6.health.from-client")
async def test_health_has_the_originals_keys(node):
    answer = await (await node()).ask(get("/health"))
    assert answer.status == 200
    assert list(answer.json()) == ["service", "status", "timestamp"]
    assert answer.json()["service"] == "mitigation-node-management"
    assert answer.json()["status"] == "healthy"


@row("6.status.from-client")
async def test_status_has_the_originals_keys_first(node):
    shown = (await (await node()).ask(get("/api/v1/status"))).json()
    assert list(shown)[:5] == ["status", "mode", "uptime_seconds", "connections", "health"]
    assert list(shown["connections"]) == ["active", "total"]
    assert (shown["status"], shown["mode"], shown["health"]) == ("running", "l7", "healthy")


@row("6.status.values.from-client")
async def test_status_tells_true_values(node):
    ours = await node()
    ours.plane.totals = Totals(connections=3, handshakes=9)
    await ours.clock.advance(90)
    shown = (await ours.ask(get("/api/v1/status"))).json()
    assert (shown["uptime_seconds"], shown["connections"]) == (90, {"active": 3, "total": 9})
    ours.drain.begin(reason="x")
    assert (await ours.ask(get("/api/v1/status"))).json()["status"] == "draining"


def absent(name, method, path):
    return pytest.param(method, path, marks=row(f"6.{name}.from-client"), id=f"{method} {path}")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        absent("waf.status", "GET", "/status/waf"),
        absent("waf.patterns_add", "POST", "/waf/patterns"),
        absent("waf.patterns_remove", "DELETE", "/waf/patterns"),
        absent("waf.reload", "POST", "/waf/reload"),
        absent("rules.list", "GET", "/api/v1/rules"),
        absent("rules.add", "POST", "/api/v1/rules"),
        absent("rules.remove", "DELETE", "/api/v1/rules/rule_1"),
        absent("stats", "GET", "/api/v1/stats"),
        absent("metrics", "GET", "/metrics"),
        absent("blacklist.add", "POST", "/api/v1/blacklist"),
        absent("blacklist.remove", "DELETE", "/api/v1/blacklist/203.0.113.7"),
        absent("config.reload", "POST", "/config/reload"),
    ],
)
async def test_what_the_data_plane_does_not_have_is_501_with_a_sentence(node, method, path):
    ours = await node()
    body = {"pattern": "x", "ip": "203.0.113.7", "force": True} if method == "POST" else None
    answer = await ours.ask(raw.original(method, path, body, token=TOKEN))
    assert answer.status == 501
    assert answer.json()["code"] == "NODE_NOT_IMPLEMENTED"
    assert answer.json()["detail"] == f"{method} {path}: this node has no packet filter or WAF"
    await refused(ours, raw.original(method, path, body))


@row("6.ports.from-client")
def test_the_ports_are_the_originals():
    node = NodeSettings()
    assert [address.rpartition(":")[2] for address in (node.listen_addr, node.metrics_addr)] == ["8443", "9090"]
    assert node.backend == "http://127.0.0.1:8080"


# ---------------------------------------------------------------- our calls on an original's node


@row("6.terminate.ours.to-node")
async def test_the_originals_node_reads_our_terminate(fleet, original_node):
    management, source = await original_node()
    ours = await fleet(real_nodes=True)
    ours.source = source
    node_id = await ours.register()
    await ours.beat(node_id)
    await ours.post(f"/api/v1/nodes/{node_id}/terminate", token="operator-token")
    await ours.until(lambda: management.terminated)
    (told,) = management.terminated
    assert (told.reason, told.grace_period_seconds) == ("MANUAL", 60)


@row("6.call.to-node")
async def test_our_call_is_the_originals_call_and_any_2xx_is_success(fleet, original_node):
    management, source = await original_node()
    ours = await fleet(real_nodes=True)
    ours.source = source
    node_id = await ours.register()
    await ours.beat(node_id)
    await ours.post(f"/api/v1/nodes/{node_id}/terminate", token="operator-token")
    await ours.until(lambda: ours.world.operations("destroy")[0].state == "draining")
    sent, recorded = management.requests[0], raw.request("terminate")
    assert (sent.first, sent.header("host")) == (recorded.first, f"{source}:9999")
    for name in ("authorization", "content-type"):
        assert sent.header(name) == recorded.header(name)
    assert list(sent.json()) == list(recorded.json())


@row("6.second_node.from-orchestrator")
async def test_two_nodes_of_one_host_are_each_called_at_their_own_address(fleet, original_node):
    (one, first), (two, second) = await original_node(), await original_node()
    ours = await fleet(real_nodes=True)
    nodes = {}
    for source in (first, second):
        ours.source = source
        nodes[source] = await ours.register()
        await ours.beat(nodes[source])
    await ours.post(f"/api/v1/nodes/{nodes[second]}/terminate", token="operator-token")
    await ours.until(lambda: two.terminated)
    assert one.terminated == []
