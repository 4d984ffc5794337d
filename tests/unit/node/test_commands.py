"""The authorisation matrix of terminate and resume, over HTTP and over NATS."""

from __future__ import annotations

import json
import uuid

import pytest
from aiohttp.test_utils import TestClient, TestServer

from node import management
from node.commands import Commands
from node.drain import Drain
from node.identity import IdentityStore, Kept
from node.load import Sampler
from node.load.cpu import Reading
from node.membership import Member

NODE, OTHER, BOOT = (str(uuid.uuid4()) for _ in range(3))
TOKEN = "the-token-of-this-node"
BODY = {"reason": "LOW_FLEET_CPU_LOAD", "timestamp": "2025-07-12T10:30:45Z", "grace_period_seconds": 60}
GUARDED = {**BODY, "node_id": NODE, "boot_id": BOOT, "epoch": 7}


class Meter:
    def read(self, wall: float) -> Reading:
        return Reading(0.0, wall)


class Rig:
    """A node's commands with one knob for each thing that decides."""

    def __init__(self, plane, clock, tmp_path, *, joined: bool, lenient: bool = False) -> None:
        self.store = IdentityStore(tmp_path)
        if joined:
            kept = Kept(
                server_url="http://x", cluster_id=NODE, node_id=NODE, pool="web", epoch=7, management_token=TOKEN
            )
            self.store.keep(kept)
        self.drain = Drain(
            plane, clock, boot_id=BOOT, record_file=tmp_path / "drain.json", longest=45.0, propagation=10.0
        )
        self.notices: list[int] = []
        member = Member(NODE, "web", 5.0, legacy=not joined)
        self.token: str | None = TOKEN
        self.commands = Commands(
            self.drain, self.store, boot_id=BOOT, member=lambda: member, on_blocklist=self.notices.append
        )
        self.facts = management.Facts(
            commands=self.commands, drain=self.drain, plane=plane, sampler=Sampler(plane, Meter(), clock),
            member=lambda: member, boot_id=BOOT, clock=clock, started=0.0, allow_legacy_terminate=lenient,
        )  # fmt: skip


@pytest.fixture
def rig(plane, clock, tmp_path):
    return lambda **options: Rig(plane, clock, tmp_path, **options)


@pytest.fixture
async def http(monkeypatch):
    """A client of the management API, from loopback or from elsewhere."""
    clients = []

    async def connect(rig: Rig, *, remote: bool = False) -> TestClient:
        monkeypatch.setattr(management, "from_loopback", lambda _request: not remote)
        client = TestClient(TestServer(management.build(rig.facts, lambda: rig.token)))
        await client.start_server()
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.close()


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("joined", "remote", "lenient", "body", "status"),
    [
        (True, True, False, GUARDED, 202),
        (True, True, False, BODY, 422),
        (True, True, True, BODY, 202),
        (True, False, False, BODY, 202),
        (False, True, False, BODY, 202),
        (True, True, False, {key: value for key, value in GUARDED.items() if key != "epoch"}, 422),
        (True, True, False, {key: value for key, value in GUARDED.items() if key != "boot_id"}, 422),
        (True, True, False, {**GUARDED, "node_id": OTHER}, 409),
        (True, True, False, {**GUARDED, "boot_id": OTHER}, 409),
        (True, True, False, {**GUARDED, "epoch": 6}, 409),
        (True, True, False, {**GUARDED, "epoch": 8}, 202),
        # what is there is checked, whoever may leave it out
        (True, False, True, {**BODY, "node_id": OTHER}, 409),
        (False, False, False, {**BODY, "boot_id": OTHER}, 409),
        (True, False, False, {**BODY, "grace_period_seconds": -1}, 422),
        (True, False, False, {"reason": "x", "timestamp": "x"}, 422),
        (True, False, False, {**BODY, "grace_period_seconds": "60; reboot"}, 422),
    ],
)
async def test_who_may_terminate_with_which_body(joined, remote, lenient, body, status, rig, http):
    made = rig(joined=joined, lenient=lenient)
    client = await http(made, remote=remote)
    async with client.post("/control/terminate", json=body, headers=bearer()) as response:
        assert response.status == status, await response.text()
    assert made.drain.draining is (status == 202)


async def test_the_answer_is_the_guides_byte_for_byte_and_stays_the_same(rig, http):
    made = rig(joined=False)
    client = await http(made)
    for grace in (60, 600, 1):
        async with client.post(
            "/control/terminate", json={**BODY, "grace_period_seconds": grace}, headers=bearer()
        ) as response:
            assert response.status == 202
            assert json.loads(await response.text()) == {
                "success": True,
                "message": "Graceful shutdown initiated with 45 second grace period",
                "grace_period_seconds": 45,
            }


@pytest.mark.parametrize(
    "path", ["/control/terminate", "/health", "/ready", "/api/v1/status", "/docs", "/nothing/here"]
)
@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong"), {"Authorization": "Bearer "}, {"Authorization": f"bearer {TOKEN}"}, {"Authorization": TOKEN}],
)
async def test_no_path_answers_without_the_token(path, headers, rig, http):
    made = rig(joined=True)
    client = await http(made)
    async with client.request("POST" if "control" in path else "GET", path, headers=headers) as response:
        assert (response.status, await response.read()) == (401, b"")
    assert not made.drain.draining


async def test_the_token_is_checked_before_the_body_is_looked_at(rig, http):
    client = await http(rig(joined=True))
    async with client.post("/control/terminate", data=b"{" * 100_000, headers=bearer("wrong")) as response:
        assert response.status == 401
    async with client.post(
        "/control/terminate", data=b"{not json", headers={**bearer(), "Content-Type": "application/json"}
    ) as response:
        assert response.status == 400


async def test_before_a_join_there_is_no_token_that_opens(rig, http):
    made = rig(joined=False)
    made.token = None
    client = await http(made)
    for token in ("", "None", TOKEN):
        async with client.get("/health", headers=bearer(token)) as response:
            assert response.status == 401


async def test_guessing_is_slowed_down_but_does_not_lock_the_orchestrator_out(rig, http):
    client = await http(rig(joined=True))
    statuses = []
    for number in range(25):
        async with client.get("/health", headers=bearer(f"guess{number}")) as response:
            statuses.append(response.status)
    assert statuses[:20] == [401] * 20
    assert statuses[20:] == [429] * 5
    async with client.get("/health", headers=bearer()) as response:
        assert response.status == 200


async def test_ready_turns_503_with_the_drain_and_back_while_health_stays(rig, http):
    made = rig(joined=True)
    client = await http(made)

    async def status(path: str) -> int:
        async with client.get(path, headers=bearer()) as response:
            return response.status

    assert (await status("/ready"), await status("/health")) == (200, 200)
    made.drain.begin(reason="x")
    assert (await status("/ready"), await status("/health")) == (503, 200)
    async with client.post("/control/resume", json={"reason": "y"}, headers=bearer()) as response:
        assert response.status == 200
    assert (await status("/ready"), await status("/health")) == (200, 200)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/status/waf"), ("POST", "/waf/patterns"), ("DELETE", "/waf/patterns"), ("POST", "/waf/reload"),
        ("GET", "/api/v1/rules"), ("POST", "/api/v1/rules"), ("DELETE", "/api/v1/rules/rule_1"),
        ("GET", "/api/v1/stats"), ("POST", "/api/v1/blacklist"), ("DELETE", "/api/v1/blacklist/1.2.3.4"),
        ("POST", "/config/reload"),
    ],
)  # fmt: skip
async def test_the_originals_other_routes_say_that_they_are_not_there(method, path, rig, http):
    client = await http(rig(joined=True))
    async with client.request(method, path, headers=bearer()) as response:
        assert response.status == 501
        assert "no packet filter" in (await response.json())["detail"]


async def test_status_has_the_originals_keys_with_true_values(rig, http, clock):
    made = rig(joined=True)
    client = await http(made)
    await clock.advance(90)
    async with client.get("/api/v1/status", headers=bearer()) as response:
        answer = await response.json()
    assert (answer["status"], answer["mode"], answer["health"]) == ("running", "l7", "healthy")
    assert answer["uptime_seconds"] == 90
    assert answer["connections"] == {"active": 0, "total": 0}
    assert TOKEN not in json.dumps(answer)


async def test_the_highest_epoch_seen_outlives_a_restart(rig, tmp_path):
    made = rig(joined=True)
    await made.commands.by_nats("secbeat.cmd.x.terminate", json.dumps({**GUARDED, "epoch": 12}).encode())
    reopened = IdentityStore(tmp_path)
    assert reopened.load().epoch == 12
    answer = json.loads(await made.commands.by_nats("secbeat.cmd.x.terminate", json.dumps(GUARDED).encode()))
    assert (answer["status"], answer["code"]) == (409, "TERMINATE_STALE_EPOCH")


@pytest.mark.parametrize(
    ("payload", "status"),
    [(b"", 422), (b"{", 422), (b"[]", 422), (b'{"reason": 1}', 422), (json.dumps(BODY).encode(), 422), (b"\xff", 422)],
)
async def test_a_bad_command_over_nats_is_answered_and_changes_nothing(payload, status, rig):
    made = rig(joined=True)
    answer = json.loads(await made.commands.by_nats(f"secbeat.cmd.{NODE}.terminate", payload))
    assert (answer["success"], answer["status"]) == (False, status)
    assert not made.drain.draining


async def test_notices_pings_and_unknown_verbs_over_nats(rig):
    made = rig(joined=True)

    async def send(verb: str, payload: bytes = b"{}") -> dict:
        return json.loads(await made.commands.by_nats(f"secbeat.cmd.{NODE}.{verb}", payload))

    assert (await send("ping"))["message"] == "serving"
    assert (await send("blocklist", b'{"v":1,"version":9}'))["success"] is True
    assert [notice.version for notice in made.notices] == [9]
    assert (await send("blocklist"))["status"] == 422
    assert (await send("reboot"))["status"] == 404


async def test_a_full_disk_does_not_keep_a_node_from_leaving(rig, monkeypatch):
    from secbeat.errors import ConfigError

    made = rig(joined=True)

    def full(_kept) -> None:
        raise ConfigError("STATE_NOT_WRITABLE", why="no space left")

    monkeypatch.setattr(made.store, "keep", full)
    answer = json.loads(
        await made.commands.by_nats("secbeat.cmd.x.terminate", json.dumps({**GUARDED, "epoch": 9}).encode())
    )
    assert answer["success"] is True
    assert made.commands.epoch == 9
