from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from secbeat import subjects
from secbeat.auth import read_secret
from secbeat.bus import Timing, connect
from secbeat.bus.identity import mint_node_user
from secbeat.bus.server import NatsServer
from secbeat.settings import NatsSettings
from secbeat.wire.heartbeat import decode_frame

FAST = Timing(ping=0.3, pings=1, stuck=0.6, reconnect_min=0.02, reconnect_max=0.1, call=1.0)


@pytest.fixture
async def server(tmp_path):
    started = NatsServer(tmp_path / "nats", port=0)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def control(server):
    """The orchestrator's connection, and every heartbeat that it hears."""
    settings = NatsSettings(url=server.url, creds_file=server.identity.creds_file("orchestrator"))
    bus = await connect(settings, name="orchestrator", timing=FAST)
    frames = []
    await bus.messaging.subscribe(subjects.HEARTBEATS, lambda _subject, payload: frames.append(decode_frame(payload)))
    yield bus, frames
    await bus.close()


@pytest.fixture
def issuing(server, orchestrator):
    """The fake orchestrator gives NATS users that live so many seconds."""

    def issue(seconds: float) -> list[str]:
        tokens = []

        def credentials(public_key: str) -> dict:
            seed, account = (
                read_secret(path) for path in (server.identity.issuer_seed_file, server.identity.account_file)
            )
            token = mint_node_user(seed, account, orchestrator.joined, public_key, seconds, time.time())
            tokens.append(token)
            end = datetime.now(UTC) + timedelta(seconds=seconds)
            return {"nats_url": server.url, "nats_jwt": token, "renew_before": end.isoformat()}

        orchestrator.nats = credentials
        return tokens

    return issue


async def command(bus, orchestrator, verb: str, **body) -> dict:
    return json.loads(
        await bus.messaging.request(subjects.command(orchestrator.joined, verb), json.dumps(body).encode(), 5.0)
    )


def terminate(frame, **changes) -> dict:
    body = {"reason": "test", "timestamp": "now", "grace_period_seconds": 30, "node_id": frame.node_id}
    return {**body, "boot_id": frame.boot_id, "epoch": 7, **changes}


async def test_a_joined_node_heartbeats_obeys_and_says_goodbye_over_nats(
    control, issuing, orchestrator, node_process, tmp_path, until
):
    bus, frames = control
    tokens = issuing(3600)
    join = orchestrator.join_file(tmp_path / "join.json")
    node = await node_process(
        node=f'join_file = "{tmp_path}/join.json"\npropagation_seconds = 5', management="enabled = false"
    )
    await until(lambda: len(frames) >= 3)
    assert {frame.node_id for frame in frames} == {join["node_id"]}
    assert frames[0].status == "Active"
    assert frames[0].pool == "web"
    assert [frame.seq for frame in frames] == sorted({frame.seq for frame in frames})
    assert orchestrator.registrations[0]["join"]["listening"]["management_port"] == 0
    assert not orchestrator.heartbeats  # ours go over NATS only

    assert (await command(bus, orchestrator, "ping"))["message"] == "serving"
    refused = await command(bus, orchestrator, "terminate", **terminate(frames[0], epoch=6))
    assert (refused["success"], refused["status"], refused["code"]) == (False, 409, "TERMINATE_STALE_EPOCH")
    refused = await command(bus, orchestrator, "terminate", reason="x", timestamp="x", grace_period_seconds=1)
    assert (refused["success"], refused["status"]) == (False, 422)
    assert (await command(bus, orchestrator, "terminate"))["code"] == "BODY_INVALID"
    assert frames[-1].status == "Active"

    accepted = await command(bus, orchestrator, "terminate", **terminate(frames[0]))
    assert accepted["message"] == "Graceful shutdown initiated with 30 second grace period"
    await until(lambda: frames[-1].status == "Draining", 2)
    assert (await command(bus, orchestrator, "resume", node_id=join["node_id"]))["status"] == 422
    guarded = {key: value for key, value in terminate(frames[0]).items() if key in {"node_id", "boot_id", "epoch"}}
    assert (await command(bus, orchestrator, "resume", **guarded))["success"] is True
    await until(lambda: frames[-1].status == "Active", 2)
    await command(bus, orchestrator, "terminate", **terminate(frames[0], grace_period_seconds=1, epoch=9))
    assert await node.ended() == 0
    await until(lambda: frames[-1].status == "Terminating")
    for token in tokens:
        assert token not in node.output


async def test_nats_credentials_are_renewed_before_they_end_and_nothing_is_missed(
    control, issuing, orchestrator, node_process, tmp_path, until
):
    bus, frames = control
    tokens = issuing(8)
    orchestrator.join_file(tmp_path / "join.json")
    node = await node_process(node=f'join_file = "{tmp_path}/join.json"')
    await until(lambda: frames)
    await until(lambda: len(tokens) >= 3, 60)
    assert "secret" not in orchestrator.registrations[1]["join"]
    count = len(frames)
    await until(lambda: len(frames) > count + 10)
    assert "closed the connection for good" not in node.output
    seqs = [frame.seq for frame in frames]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert (await command(bus, orchestrator, "ping"))["success"] is True


async def test_a_node_whose_credentials_have_ended_gets_new_ones_by_itself(
    control, issuing, orchestrator, node_process, tmp_path, until
):
    _bus, frames = control
    issuing(3)
    orchestrator.join_file(tmp_path / "join.json")
    node = await node_process(node=f'join_file = "{tmp_path}/join.json"')
    await until(lambda: frames)
    orchestrator.answers = [503] * 3  # away while the renewal is due
    await until(lambda: "closed the connection for good" in node.output, 40)
    count = len(frames)
    await until(lambda: len(frames) > count + 5, 60)
    assert node.running()


async def test_a_nats_server_that_comes_late_is_found(orchestrator, node_process, tmp_path, until):
    server = NatsServer(tmp_path / "late", port=0, open_access=True)
    await server.start()
    url = server.url
    await server.stop()
    orchestrator.nats = lambda _key: {"nats_url": url}
    orchestrator.join_file(tmp_path / "join.json")
    node = await node_process(node=f'join_file = "{tmp_path}/join.json"')
    await until(lambda: "No NATS" in node.output)
    server = NatsServer(tmp_path / "late", port=int(url.rpartition(":")[2]), free_port_if_taken=False, open_access=True)
    await server.start()
    try:
        bus = await connect(NatsSettings(url=url), name="listener", timing=FAST)
        frames = []
        await bus.messaging.subscribe(
            subjects.HEARTBEATS, lambda _subject, payload: frames.append(decode_frame(payload))
        )
        await until(lambda: frames)
        await bus.close()
    finally:
        await server.stop()
    assert node.running()


async def test_a_notice_over_nats_brings_the_blocklist_into_force(
    control, issuing, orchestrator, node_process, tmp_path, upstream, client, until
):
    bus, frames = control
    issuing(3600)
    orchestrator.join_file(tmp_path / "join.json")
    node = await node_process(node=f'join_file = "{tmp_path}/join.json"\nbackend = "{await upstream()}"')
    await until(lambda: frames)
    async with client.get(f"https://127.0.0.1:{node.proxy}/") as response:
        assert response.status == 200
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    orchestrator.snapshot = {
        "v": 1,
        "version": 4,
        "complete": True,
        "blocked": [{"ip": "127.0.0.0/8", "expires_at": end}],
    }
    await bus.messaging.publish(subjects.command(orchestrator.joined, "blocklist"), b'{"v":1,"version":4}')
    await until(lambda: frames[-1].blocklist_version == 4)
    async with client.get(f"https://127.0.0.1:{node.proxy}/") as response:
        assert response.status == 403


async def test_a_node_in_the_originals_form_says_goodbye_on_nats_but_takes_no_commands_there(
    orchestrator, node_process, tmp_path, until
):
    server = NatsServer(tmp_path / "open", port=0, open_access=True)
    await server.start()
    bus = await connect(NatsSettings(url=server.url), name="listener", timing=FAST)
    try:
        frames = []
        await bus.messaging.subscribe(
            subjects.HEARTBEATS, lambda _subject, payload: frames.append(decode_frame(payload))
        )
        token = "0123456789abcdef-own"
        node = await node_process(
            node=f'server_url = "{orchestrator.url}"',
            management=f'auth_token = "{token}"',
            nats=f'\nurl = "{server.url}"',
        )
        await until(lambda: orchestrator.heartbeats and "Connected to NATS" in node.output)
        node_id = orchestrator.heartbeats[0]["node_id"]
        body = {"reason": "x", "timestamp": "x", "grace_period_seconds": 1, "node_id": node_id}
        await bus.messaging.publish(subjects.command(node_id, "terminate"), json.dumps(body).encode())
        count = len(orchestrator.heartbeats)
        await until(lambda: len(orchestrator.heartbeats) > count + 3)
        assert orchestrator.heartbeats[-1]["status"] == "Active"
        node.process.terminate()
        assert await node.ended() == 0
        await until(lambda: frames)
        assert [(frame.node_id, frame.status) for frame in frames] == [(node_id, "Terminating")]
    finally:
        await bus.close()
        await server.stop()
