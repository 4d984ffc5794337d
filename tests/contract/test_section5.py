"""Registration and heartbeats: an original's node here, our node at an original's orchestrator."""

from __future__ import annotations

import json
import uuid

import pytest

from node.dataplane import Totals
from secbeat.settings import NodeSettings
from tests.contract import raw
from tests.contract.original import serde
from tests.contract.original.programs import Orchestrator
from tests.contract.ours.fleet import IDENTITY
from tests.contract.raw import Message

row = pytest.mark.row
BUSY = Message("HTTP/1.1 500 Internal Server Error", (("content-length", "0"),), b"")


@pytest.fixture
async def original():
    server = await Orchestrator().start()
    yield server
    await server.close()


def posts(original):
    return [one.first.split()[1].rpartition("/")[2] for one in original.requests if one.first.startswith("POST")]


# ---------------------------------------------------------------- an original's node


@row("5.register.from-node")
async def test_the_recorded_registration_is_accepted_byte_for_byte(fleet):
    ours = await fleet()
    sent = raw.request("node_session")
    answer = await ours.ask(raw.recorded("node_session.request.bin")[:273])
    assert answer.status == 200
    shown = await ours.node(answer.json()["node_id"])
    assert (shown["public_ip"], shown["config"]) == (sent.json()["public_ip"], sent.json()["config"])
    assert (shown["address"], shown["management_port"], shown["legacy"]) == ("127.0.0.1", 9999, True)


@row("5.accepted_answer.from-node")
async def test_our_answer_has_what_the_originals_node_needs(fleet):
    answer = await (await fleet()).ask(raw.encode(raw.request("node_session")))
    assert serde.Registered.read(answer.body).assigned_config is None
    assert "assigned_config" not in answer.json()
    with pytest.raises(ValueError):
        serde.Registered.read(json.dumps(answer.json() | {"assigned_config": {"tls_enabled": True}}).encode())


@row("5.on_failure.from-node")
async def test_a_node_that_came_before_us_is_adopted_and_its_draining_is_no_drain(fleet):
    ours = await fleet()
    made_up = str(uuid.uuid4())
    for _ in range(3):
        assert await ours.beat(made_up, "Draining") == 200
        await ours.world.clock.advance(30)
    assert ours.state(made_up) == "active"
    shown = await ours.node(made_up)
    assert (shown["status"], shown["reported_status"]) == ("Active", "Draining")
    assert ours.world.operations("destroy") == []


@row("5.heartbeat.from-node")
async def test_the_recorded_session_is_answered_on_its_one_connection(fleet):
    ours = await fleet()
    session = raw.recorded("node_session.request.bin")
    for sent in raw.split(session):
        assert sent.names == ["content-type", "accept", "host", "content-length"]
    registered, *answers = await raw.exchange(ours.port, session, answers=4)
    assert registered.status == 200
    assert [(one.status, one.body) for one in answers] == [(200, b"")] * 3
    assert "connection" not in {name.lower() for name in answers[0].names}
    # Its heartbeats carry the id that the original gave it: a node that we do not know.
    assert ours.core.registry.get(IDENTITY).cpu == pytest.approx(0.6612970)


@row("5.heartbeat_answer.from-node")
async def test_the_answer_to_a_heartbeat_is_a_2xx_in_the_fast_lane_and_beside_it(fleet):
    ours = await fleet()
    node_id = await ours.register()
    assert await ours.beat(node_id) == 200
    beat = raw.original("POST", "/api/v1/nodes/heartbeat", json.loads(raw.request("node_session", 1).body))
    slow = raw.Message(beat.first, (*beat.headers, ("connection", "close")), beat.body.replace(
        IDENTITY.encode(), node_id.encode()))  # fmt: skip
    assert (await ours.ask(slow)).status == 200


@row("5.failures.from-node")
async def test_a_node_that_beats_dead_for_ever_stays_in_service(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat(node_id)
    await ours.beat_for(node_id, 600, every=30, status="Dead")
    shown = await ours.node(node_id)
    assert (shown["status"], shown["reported_status"], shown["silent"]) == ("Active", "Dead", False)


@row("5.metrics.from-node")
async def test_percent_becomes_a_fraction_and_a_waf_block_counts_once(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat(node_id, cpu_usage=0.5, memory_usage=50, total_requests=100, ddos_blocks=20, waf_blocks=15)
    node = ours.core.registry.get(node_id)
    assert (node.cpu, node.memory) == (pytest.approx(0.005), pytest.approx(0.5))
    assert (await ours.get("/api/v1/dashboard/summary")).json()["blocked_requests"] == 20


@row("5.liveness.timeout.from-node")
async def test_a_node_is_dead_after_three_of_its_intervals_and_a_closed_port(fleet):
    ours = await fleet()
    node_id = await ours.register()
    for _ in range(16):
        await ours.beat(node_id)
        await ours.world.clock.advance(30)
    await ours.world.clock.advance(40)
    shown = await ours.node(node_id)
    assert (shown["status"], shown["silent"]) == ("Active", False), "the original would have called it dead at 30 s"
    await ours.until(lambda: ours.state(node_id) in {"failed", None}, seconds=120)


@row("5.liveness.overwrite.from-node")
async def test_a_heartbeat_does_not_overwrite_what_we_decided(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat(node_id)
    await ours.post(f"/api/v1/nodes/{node_id}/terminate", token="operator-token")
    await ours.beat(node_id, "Active")
    shown = await ours.node(node_id)
    assert (shown["status"], shown["reported_status"]) == ("Draining", "Active")


@row("5.liveness.removal.from-node")
async def test_a_node_that_has_left_is_not_listed(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat(node_id)
    await ours.beat(node_id, "Terminating")
    await ours.until(lambda: ours.state(node_id) is None)
    assert (await ours.get("/api/v1/nodes")).json() == []


# ---------------------------------------------------------------- our node


@row("5.register.to-orchestrator")
async def test_our_node_registers_by_the_originals_request(node, original):
    ours = await node(server_url=f"{original.url}/", public_ip="10.0.0.9")
    ours.run()
    await ours.until(lambda: original.registered)
    sent, recorded = original.requests[0], raw.request("node_session")
    assert sent.first == recorded.first
    assert sent.header("content-type") == recorded.header("content-type")
    assert sent.json()["config"]["node_type"] == recorded.json()["config"]["node_type"] == "mitigation-node"


@row("5.accepted_answer.to-orchestrator")
async def test_our_node_accepts_an_assigned_config(node, original):
    answer = raw.response("node_session")
    assigned = {
        "listen_addr": "0.0.0.0:1", "backend_addr": "x", "tls_enabled": False, "ddos_enabled": True,
        "waf_enabled": True, "max_connections": 1, "rate_limit_rps": 1,
    }  # fmt: skip
    body = json.dumps(answer.json() | {"assigned_config": assigned}).encode()
    original.answers = [Message(answer.first, answer.headers, body)]
    original.known.append(answer.json()["node_id"])
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    assert str(original.beats[0].node_id) == answer.json()["node_id"]


@row("5.on_success.to-orchestrator")
async def test_after_its_registration_our_node_is_active(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    assert original.beats[0].status == "Active"


@row("5.on_failure.to-orchestrator")
async def test_our_node_registers_until_it_is_answered_and_reports_nothing_meanwhile(node, original):
    original.answers = [BUSY] * 4
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    assert [name for name in posts(original) if name != "heartbeat"] == ["register"] * 5
    assert posts(original).index("heartbeat") == 5


@row("5.heartbeat.to-orchestrator")
async def test_our_node_beats_at_once_and_then_every_ten_seconds(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    assert ours.clock.monotonic() < 1.0
    await ours.until(lambda: len(original.beats) == 7)
    assert 57.0 <= ours.clock.monotonic() <= 63.0


@row("5.heartbeat_answer.to-orchestrator")
async def test_a_command_in_a_heartbeats_answer_is_not_carried_out(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    body = b'{"config_update":null,"commands":[{"command_type":"terminate","parameters":{},"timestamp":1}]}'
    headers = (("content-type", "application/json"), ("content-length", "0"))
    original.answers = [Message("HTTP/1.1 200 OK", headers, body)]
    seen = len(original.requests)
    await ours.until(lambda: len(original.requests) >= seen + 2)
    assert not ours.drain.draining
    assert len(original.known) == 1


@row("5.failures.to-orchestrator")
async def test_our_node_beats_on_as_what_it_is_after_failures(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    original.answers = [BUSY] * 5
    before = len(original.beats)
    await ours.until(lambda: not original.answers and len(original.beats) > before)
    assert {beat.status for beat in original.beats} == {"Active"}
    assert len(original.registered) == 1


@row("5.base_url.to-orchestrator")
def test_the_base_url_is_the_originals():
    assert NodeSettings().server_url == "http://127.0.0.1:3030"


@row("5.metrics.to-orchestrator")
async def test_our_node_reports_percent_of_the_last_interval_and_counts_blocks_once(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    ours.plane.totals = Totals(requests=40, blocked=4, connections=7)
    await ours.until(lambda: original.beats[-1].metrics.total_requests == 40)
    metrics = original.beats[-1].metrics
    assert metrics.cpu_usage == pytest.approx(50.0)
    assert 0 < metrics.memory_usage <= 100
    assert (metrics.active_connections, metrics.ddos_blocks, metrics.waf_blocks) == (7, 4, 0)
    assert metrics.packets_per_second == pytest.approx(4, abs=1)


@row("5.blocklist.to-orchestrator")
async def test_our_node_reports_although_the_original_has_no_blocklist_to_give(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    (asked, *_) = [path for path in original.paths() if "rules" in path]
    assert asked.partition("?")[0] == "/api/v1/rules/snapshot"
    assert ours.plane.totals.blocked == 0


@row("5.keep_alive.to-orchestrator")
async def test_heartbeats_come_on_the_registrations_connection(node, original):
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: len(original.beats) == 6)
    posted = [
        number
        for one, number in zip(original.requests, original.connections, strict=True)
        if one.first.startswith("POST")
    ]
    assert len(posted) == 7
    assert len(set(posted)) <= 2  # the other one fetches the blocklist
