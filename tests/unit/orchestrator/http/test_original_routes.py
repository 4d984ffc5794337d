"""The original's routes: statuses and bodies as its programs send and expect them (recorded where possible)."""

from __future__ import annotations

import asyncio
import json
import time
from ipaddress import ip_network
from itertools import pairwise

import aiohttp
import pytest

from secbeat.api import listen

UNKNOWN = "00000000-0000-4000-8000-000000000000"
METRICS = {
    "cpu_usage": 67.23230977288095, "memory_usage": 3.5, "packets_per_second": 10, "active_connections": 1,
    "total_requests": 3, "ddos_blocks": 0, "waf_blocks": 0,
}  # fmt: skip


def heartbeat(node_id, status="Active", **metrics):
    return {"node_id": node_id, "metrics": {**METRICS, **metrics}, "status": status}


async def test_the_recorded_session_of_an_original_node_is_answered_200_four_times(api, node_session):
    # The recorded heartbeats carry the id that the original gave; ours must take in a node that it does not know.
    api.control.adopts.add("550d7b95-4310-40ca-a9d4-4eb58650389f")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rsplit(":", 1)[1]))
    writer.write(node_session)
    answers = []
    for _ in range(4):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        answers.append((head.split()[1], await reader.readexactly(length)))
    writer.close()
    await writer.wait_closed()
    assert [status for status, _ in answers] == ["200"] * 4
    assert [body for _, body in answers[1:]] == [b"", b"", b""]
    registered = json.loads(answers[0][1])
    assert list(registered) == ["node_id", "heartbeat_interval", "endpoints"]
    assert registered["endpoints"]["heartbeat_url"] == "http://127.0.0.1:3031/api/v1/nodes/heartbeat"
    node = api.registry.get("550d7b95-4310-40ca-a9d4-4eb58650389f")
    assert node.cpu == pytest.approx(0.6612970)
    assert api.registry.counters["received"] == 3


@pytest.mark.parametrize(
    ("recording", "method", "path", "body", "headers"),
    [
        ("09_node_404", "GET", f"/api/v1/nodes/{UNKNOWN}", None, {}),
        ("10_node_bad_uuid", "GET", "/api/v1/nodes/xyz", None, {}),
        ("12_wrong_method", "DELETE", "/api/v1/nodes", None, {}),
        ("13_register_no_ctype", "POST", "/api/v1/nodes/register", b"{}", {}),
        ("14_register_malformed", "POST", "/api/v1/nodes/register", b"{", {"Content-Type": "application/json"}),
        ("15_register_missing_field", "POST", "/api/v1/nodes/register", {"public_ip": "127.0.0.1"}, {}),
        ("16_heartbeat_unknown", "POST", "/api/v1/nodes/heartbeat", heartbeat(UNKNOWN), {}),
    ],
)
async def test_a_refusal_has_the_originals_status_and_kind_of_body(
    api, recorded, recording, method, path, body, headers
):
    status, text = recorded(recording)
    answer = await api.call(method, path, body, headers=headers)
    assert answer.status == status
    # The original's sentences name its parser; what they begin with is the contract.
    beginning = text.partition(":")[0]
    assert answer.body.decode().partition(":")[0] == beginning
    if not text:
        assert answer.body == b""
    if status == 415:
        assert answer.body.decode() == text
    if status == 405:
        assert answer.headers["Allow"] == "GET,HEAD"


async def test_a_body_over_the_limit_is_413(api):
    answer = await api.post(
        "/api/v1/nodes/heartbeat", b"[" + b" " * 70_000 + b"]", headers={"Content-Type": "application/json"}
    )
    assert (answer.status, answer.body) == (413, b"")


async def test_an_unknown_path_is_404(api):
    answer = await api.get(f"/api/v1/nodes/{UNKNOWN}/commands")
    assert answer.status == 404


async def test_terminating_an_unknown_node_is_404_and_empty(api, recorded):
    answer = await api.post(f"/api/v1/nodes/{UNKNOWN}/terminate", token="operate")
    assert (answer.status, answer.body.decode()) == recorded("18_terminate_unknown")


async def test_terminate_answers_an_empty_200_and_starts_the_drain(api):
    node_id = api.add_node()
    answer = await api.post(f"/api/v1/nodes/{node_id}/terminate", token="operate")
    assert (answer.status, answer.body) == (200, b"")
    assert api.control.calls[-1] == ("drain", {"node_id": node_id, "reason": "MANUAL", "by": "the-operate"})


async def test_terminate_needs_a_token_even_on_loopback(api):
    answer = await api.post(f"/api/v1/nodes/{api.add_node()}/terminate")
    assert (answer.status, answer.body) == (401, b"")
    assert api.control.calls == []


async def test_a_node_id_is_found_in_each_form_that_the_original_parses(api):
    node_id = api.add_node()
    for text in (node_id, node_id.upper(), node_id.replace("-", "")):
        answer = await api.get(f"/api/v1/nodes/{text}")
        assert (answer.status, answer.json()["node_id"]) == (200, node_id)


async def test_the_list_is_a_bare_array_with_the_originals_keys(api, recorded):
    node_id = api.add_node()
    await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id))
    original = json.loads(recorded("02_nodes")[1])
    answer = (await api.get("/api/v1/nodes")).json()
    assert isinstance(answer, list)
    assert original[0].keys() <= answer[0].keys()
    assert original[0]["metrics"].keys() == answer[0]["metrics"].keys()
    assert answer[0]["metrics"]["cpu_usage"] == pytest.approx(67.2323, abs=0.001)
    assert answer[0]["status"] == "Active"


async def test_a_long_list_waits_for_a_slow_client_and_comes_whole(api, monkeypatch):
    made = 0

    def listing(_nodes, **_options):
        nonlocal made
        yield b"["
        for made in range(1, 101):
            yield (b"," if made > 1 else b"") + b'"' + b"x" * 500_000 + b'"'
        yield b"]"

    monkeypatch.setattr(api.registry, "listing", listing)
    address = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(address[0], int(address[1]), limit=64 * 1024)
    writer.write(b"GET /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    before = -1
    while made != before:  # until the kernel's buffers are full and the server waits
        before = made
        await asyncio.sleep(0.2)
    assert 0 < made < 60
    answer = await reader.read(-1)
    writer.close()
    assert made == 100
    assert answer.count(b"x" * 500_000) == 100


async def test_while_a_long_list_is_made_everything_else_gets_its_turn(api, monkeypatch):
    turns, at = 0, []

    def listing(_nodes, **_options):
        for _ in range(20):
            at.append(turns)
            time.sleep(0.005)
            yield b"x" * 200_000

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(api.registry, "listing", listing)
    task = asyncio.create_task(others())
    await api.get("/api/v1/nodes")
    task.cancel()
    # The first chunks are taken before anything is sent.
    assert all(before < after for before, after in pairwise(at[2:]))


async def test_an_empty_fleet_is_an_empty_array(api):
    assert (await api.get("/api/v1/nodes")).body == b"[]"


async def test_fleet_stats_has_the_originals_keys_in_percent_and_scaling(api, recorded):
    await api.post("/api/v1/nodes/heartbeat", heartbeat(api.add_node()))
    answer = (await api.get("/api/v1/fleet/stats")).json()
    original = json.loads(recorded("04_fleet_stats")[1])
    assert answer.keys() == original.keys() | {"scaling"}
    assert answer["avg_cpu_usage"] == pytest.approx(67.2323, abs=0.001)
    assert answer["scaling"]["pools"]["default"]["policy"] == {"scale_up_cpu_threshold": 0.8}


async def test_fleet_stats_tells_counters_and_the_last_decision_of_each_pool(api, make):
    decision = make.decision("Above 0.80 for 1 of 2 checks.", make.start, up_checks=1)
    api.control.views["default"] = make.pool_view("default", decision=decision)
    shown = (await api.get("/api/v1/fleet/stats")).json()["scaling"]["pools"]["default"]
    assert shown["up_checks"] == 1
    assert shown["decision"]["sentence"] == "Above 0.80 for 1 of 2 checks."


async def test_health_has_the_originals_three_keys(api, recorded):
    answer = (await api.get("/api/v1/health")).json()
    assert answer.keys() == json.loads(recorded("05_health")[1]).keys()
    assert answer["status"] == "healthy"


async def test_the_dashboard_counts_requests_blocks_and_health(api):
    # An original's node counts what its WAF blocks among ddos_blocks as well.
    await api.post(
        "/api/v1/nodes/heartbeat", heartbeat(api.add_node(), total_requests=200, ddos_blocks=50, waf_blocks=40)
    )
    answer = (await api.get("/api/v1/dashboard/summary")).json()
    assert answer.keys() == {
        "total_requests", "blocked_requests", "active_nodes", "cluster_health", "requests_per_minute", "total_pps",
        "block_rate", "timestamp",
    }  # fmt: skip
    assert (answer["total_requests"], answer["blocked_requests"], answer["block_rate"]) == (200, 50, 25.0)
    assert answer["cluster_health"] == "healthy"


async def test_the_dashboard_is_critical_without_an_active_node_and_degraded_below_half(api):
    assert (await api.get("/api/v1/dashboard/summary")).json()["cluster_health"] == "critical"
    for state in ("active", "failed", "failed", "failed", "failed"):
        api.add_node(state=state)
    assert (await api.get("/api/v1/dashboard/summary")).json()["cluster_health"] == "degraded"


# ---------------------------------------------------------------- heartbeats


@pytest.mark.parametrize("status", ["Active", "Draining", "Terminating", "Dead", "Registered", "Starting"])
async def test_every_status_of_a_node_is_accepted(api, status):
    node_id = api.add_node()
    answer = await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id, status))
    assert (answer.status, answer.body) == (200, b"")
    assert api.registry.get(node_id).reported_status == status


@pytest.mark.parametrize(
    "body",
    [
        {"status": "Asleep"},
        {"metrics": {**METRICS, "total_requests": "3"}},
        {"metrics": {**METRICS, "total_requests": 3.5}},
        {"metrics": {**METRICS, "total_requests": -1}},
        {"metrics": {"cpu_usage": 1.0}},
    ],
    ids=["unknown status", "string", "float", "negative", "missing fields"],
)
async def test_a_heartbeat_with_a_bad_field_is_422_changes_nothing_and_is_proof_of_life(api, body):
    node_id = api.add_node()
    await api.clock.advance(1000)
    node = api.registry.get(node_id)
    assert api.registry.silent(node, api.clock.monotonic())
    answer = await api.post("/api/v1/nodes/heartbeat", {**heartbeat(node_id), **body})
    assert answer.status == 422
    assert answer.body.startswith(b"Failed to deserialize the JSON body into the target type: ")
    assert not api.registry.silent(node, api.clock.monotonic())
    assert node.reported_status is None
    assert node.cpu is None


async def test_integers_are_accepted_for_floats(api):
    node_id = api.add_node()
    answer = await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id, cpu_usage=67, memory_usage=3))
    assert answer.status == 200
    assert api.registry.get(node_id).cpu == pytest.approx(0.67)


class TestInAPoolWhoseUnitIsFraction:
    @pytest.fixture(autouse=True)
    def _fraction(self, parts):
        parts.options["legacy_unit"] = lambda pool: "fraction" if pool == "default" else "percent"

    async def test_the_value_is_taken_as_it_is(self, api):
        node_id = api.add_node()
        await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id, cpu_usage=0.5))
        assert api.registry.get(node_id).cpu == pytest.approx(0.5)


async def test_percent_is_never_guessed_from_the_value(api):
    node_id = api.add_node()
    await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id, cpu_usage=0.5))
    assert api.registry.get(node_id).cpu == pytest.approx(0.005)


@pytest.mark.parametrize("token", [None, "operate"])
async def test_nobody_beats_for_a_node_that_joined_with_a_secret(api, token):
    node_id = api.add_node(legacy=False)
    answer = await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id, "Terminating"), token=token)
    assert (answer.status, answer.body) == (401, b"")
    assert api.registry.get(node_id).reported_status is None
    bad = await api.post("/api/v1/nodes/heartbeat", {"node_id": node_id})
    assert bad.status == 422
    assert not api.registry.get(node_id).heard


class TestFromBeyondLegacyNodes:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, parts):
        parts.options["legacy_nodes"] = [ip_network("10.0.0.0/8")]

    async def test_a_known_node_is_401(self, api):
        node_id = api.add_node()
        answer = await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id))
        assert (answer.status, answer.body) == (401, b"")
        assert not api.registry.get(node_id).heard

    async def test_an_unknown_node_is_404(self, api):
        answer = await api.post("/api/v1/nodes/heartbeat", heartbeat(UNKNOWN))
        assert (answer.status, answer.body) == (404, b"")

    async def test_a_bad_body_is_no_proof_of_life(self, api):
        node_id = api.add_node()
        assert (await api.post("/api/v1/nodes/heartbeat", {"node_id": node_id})).status == 422
        assert not api.registry.get(node_id).heard


async def test_an_unknown_node_is_counted_and_core_is_asked_whether_to_adopt_it(api):
    answer = await api.post("/api/v1/nodes/heartbeat", heartbeat(UNKNOWN))
    assert answer.status == 404
    assert api.control.calls == [("adopt", {"node_id": UNKNOWN, "peer": "127.0.0.1"})]
    assert api.registry.counters["unknown"] == 1


async def test_heartbeats_are_accepted_without_the_lease(api):
    api.control.leader = False
    node_id = api.add_node()
    assert (await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id))).status == 200


async def test_a_plain_heartbeat_does_not_go_the_whole_way(parts, monkeypatch):
    async def broken(self, request):
        raise AssertionError

    monkeypatch.setattr("orchestrator.http.heartbeats.Heartbeats.beat", broken)
    listener = await listen(parts.application(), "127.0.0.1:0")
    node_id = parts.add_node()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{listener.url}/api/v1/nodes/heartbeat", json=heartbeat(node_id)) as response,
    ):
        assert response.status == 200
    await listener.close()


async def test_the_fast_lane_and_the_whole_way_answer_alike(api):
    # A charset parameter is not plain, so the second request goes the whole way.
    node_id = api.add_node()
    fast = await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id))
    whole = await api.post(
        "/api/v1/nodes/heartbeat", heartbeat(node_id), headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert (fast.status, fast.body) == (whole.status, whole.body) == (200, b"")
    for name in ("X-Content-Type-Options", "Cache-Control", "Content-Length"):
        assert fast.headers[name] == whole.headers[name]
    assert api.registry.counters["received"] == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
async def test_the_fast_lane_lets_nothing_pass_that_the_whole_way_refuses(api, headers, status):
    node_id = api.add_node()
    answer = await api.post("/api/v1/nodes/heartbeat", heartbeat(node_id), headers=headers)
    assert answer.status == status
    assert not api.registry.get(node_id).heard


async def test_a_chunked_heartbeat_is_accepted(api):
    node_id = api.add_node()

    async def chunks():
        body = json.dumps(heartbeat(node_id)).encode()
        yield body[:20]
        yield body[20:]

    async with api.session.post(
        api.url + "/api/v1/nodes/heartbeat", data=chunks(), headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 200
    assert api.registry.get(node_id).heard


@pytest.mark.parametrize(
    "body", [b"[" * 30_000, b'{"node_id":' * 5000, b"\xff\xfe", b"", b"null", b'"x"', b"{}", b'{"node_id": NaN}']
)
async def test_a_hostile_heartbeat_is_refused_and_the_service_goes_on(api, body):
    answer = await api.post("/api/v1/nodes/heartbeat", body, headers={"Content-Type": "application/json"})
    assert answer.status in {400, 422}
    assert (await api.get("/api/v1/health")).status == 200


# ---------------------------------------------------------------- registration


async def test_core_gets_peer_host_and_token_of_a_registration(api):
    body = {"public_ip": "10.0.0.1", "config": {"node_type": "mitigation-node", "tags": []}}
    await api.post("/api/v1/nodes/register", body, token="node", headers={"Host": "127.0.0.1:3030"})
    ((_, call),) = api.control.calls
    assert (call["peer"], call["host"], call["token"]) == ("127.0.0.1", "127.0.0.1:3030", "node-token")
    assert call["request"].config.region is None
