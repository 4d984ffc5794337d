"""Who may do what, asked of a real server."""

from __future__ import annotations

import asyncio
import stat
import time

import pytest

from secbeat import ids, subjects
from secbeat.bus import NodeCredentials, connect, identity, jwt
from secbeat.bus.server import NatsServer
from secbeat.errors import ConfigError
from secbeat.settings import NatsSettings
from secbeat.store import Unavailable
from secbeat.testing import until

ME, OTHER = "8c0e2b1c-2f57-4b0e-9d0a-5d6f7a8b9c0d", "00000000-0000-4000-8000-000000000000"


def credentials(server: NatsServer, node_id: str = ME, ttl: float = 60) -> NodeCredentials:
    seed, public = identity.new_user_keys()
    issuer = server.identity.issuer_seed_file.read_text()
    account = server.identity.account_file.read_text()
    return NodeCredentials(identity.mint_node_user(issuer, account, node_id, public, ttl, time.time()), seed)


async def listening(bus, subject: str = "secbeat.>") -> asyncio.Queue:
    """A queue of what a service hears, once the server knows that it listens."""
    heard: asyncio.Queue = asyncio.Queue()
    await bus.messaging.subscribe(subject, lambda *message: heard.put_nowait(message))
    await bus.messaging.publish("secbeat.ev.ready", b"")
    async with asyncio.timeout(5):
        await heard.get()
    return heard


async def heard_next(queue: asyncio.Queue) -> tuple[str, bytes]:
    async with asyncio.timeout(5):
        return await queue.get()


async def test_a_node_publishes_its_heartbeat(server, bus_to):
    heard = await listening(await bus_to(server))
    node = await bus_to.node(server, credentials(server))
    await node.messaging.publish(subjects.heartbeat(ME), b"alive")
    assert await heard_next(heard) == (subjects.heartbeat(ME), b"alive")
    assert node.errors.get("permission", 0) == 0


@pytest.mark.parametrize(
    "subject",
    [
        subjects.heartbeat(OTHER),
        f"{subjects.heartbeat(ME)}.x",
        subjects.command(ME, "terminate"),
        subjects.command(OTHER, "terminate"),
        "secbeat.ev.node.joined",
        "secbeat.jobs.x",
        "secbeat.queue.x",
        "secbeat.ledger.audit._",
        "$KV.state.node.x",
        "$KV.jobs.job.x",
        "$JS.API.INFO",
        "$JS.API.STREAM.DELETE.KV_state",
        "$JS.ACK.JOBS.workers.1.1.1.1.1",
        "$SYS.REQ.SERVER.PING",
        "_INBOX.orchestrator.x",
    ],
)
async def test_a_node_cannot_publish_anything_else(server, bus_to, subject):
    orchestrator = await bus_to(server)
    await orchestrator.bucket("state")
    heard = await listening(orchestrator)
    node = await bus_to.node(server, credentials(server))
    await node.messaging.publish(subject, b"forged")
    await node.messaging.publish(subjects.heartbeat(ME), b"the one after it")
    assert await heard_next(heard) == (subjects.heartbeat(ME), b"the one after it")
    await until(lambda: node.errors.get("permission") == 1)
    assert node.connected, "a refused publish must not end the connection"


@pytest.mark.parametrize(
    "subject",
    [
        subjects.HEARTBEATS,
        subjects.heartbeat(OTHER),
        subjects.commands(OTHER),
        "secbeat.cmd.>",
        "secbeat.>",
        "secbeat.ev.>",
        "_INBOX.>",
        f"_INBOX.{OTHER}.>",
        "$KV.>",
        "$JS.EVENT.>",
        "$SYS.>",
        ">",
    ],
)
async def test_a_node_cannot_listen_to_others(server, bus_to, subject):
    node = await bus_to.node(server, credentials(server))
    await node.messaging.subscribe(subject, lambda *_: None)
    await until(lambda: node.errors.get("permission") == 1)


async def test_a_node_hears_its_commands_and_answers_them(server, bus_to):
    orchestrator = await bus_to(server)
    node = await bus_to.node(server, credentials(server))

    async def answer(subject, payload):
        return b"accepted " + subject.rsplit(".", 1)[1].encode()

    await node.messaging.respond(subjects.commands(ME), answer)
    await until(lambda: node.connected)
    for _ in range(50):
        try:
            reply = await orchestrator.messaging.request(subjects.command(ME, "ping"), b"", 1)
            break
        except Unavailable:  # the subscription is on its way
            await asyncio.sleep(0.05)
    assert reply == b"accepted ping"
    with pytest.raises(Unavailable):
        await orchestrator.messaging.request(subjects.command(OTHER, "ping"), b"", 0.5)
    assert node.errors.get("permission", 0) == 0


async def test_a_forged_or_stolen_token_does_not_log_in(server):
    good = credentials(server)
    stranger_seed, _ = jwt.new_keys(jwt.ACCOUNT)
    seed, public = identity.new_user_keys()
    account = server.identity.account_file.read_text()
    forged = identity.mint_node_user(stranger_seed, account, ME, public, 60, time.time())
    head, _, signature = good.token.split(".")
    widened = jwt._encode(jwt._json({**jwt.claims_of(good.token), "name": "admin"}))
    for wrong in (
        NodeCredentials(forged, seed),
        NodeCredentials(good.token, seed),  # the token without its key
        NodeCredentials(f"{head}.{widened}.{signature}", good.seed),
        NodeCredentials("", good.seed),
    ):
        with pytest.raises(ConfigError) as refusal:
            await connect(NatsSettings(url=server.url), name="x", jetstream=False, credentials=wrong)
        assert refusal.value.code == "NATS_AUTH"
        assert good.seed not in str(refusal.value.lines())
        assert good.token not in str(refusal.value.lines())


async def test_a_token_that_ended_closes_the_connection_for_good_and_says_so(server, bus_to):
    closed: list[bool] = []
    node = await bus_to.node(server, credentials(server, ttl=2), on_closed=lambda: closed.append(True))
    await until(lambda: bool(closed))
    assert not node.connected
    assert node.errors["closed"] == 1
    renewed = await bus_to.node(server, credentials(server))
    assert renewed.connected


async def test_a_renewed_token_for_the_same_key_works_before_the_old_one_ends(server, bus_to):
    seed, public = identity.new_user_keys()
    issuer, account = server.identity.issuer_seed_file.read_text(), server.identity.account_file.read_text()
    now = time.time()
    for ttl in (60, 3600):
        token = identity.mint_node_user(issuer, account, ME, public, ttl, now)
        assert jwt.claims_of(token)["exp"] == int(now + ttl)
        await bus_to.node(server, NodeCredentials(token, seed))


@pytest.mark.parametrize("name", [">", "*", "a.b", "", "8C0E2B1C-2F57-4B0E-9D0A-5D6F7A8B9C0D", f"{ME}\n", f"{ME}.>"])
def test_a_name_that_is_no_node_id_is_never_signed(name):
    seed, account = jwt.new_keys(jwt.ACCOUNT)
    _, public = identity.new_user_keys()
    with pytest.raises(ValueError, match="UUID"):
        identity.mint_node_user(seed, account, name, public, 60, 0)


def test_a_key_that_is_no_users_is_never_signed():
    seed, account = jwt.new_keys(jwt.ACCOUNT)
    with pytest.raises(ValueError, match="user"):
        identity.mint_node_user(seed, account, ME, account, 60, 0)


def test_the_identity_is_made_once_and_only_its_user_can_read_it(tmp_path):
    directory = tmp_path / "secrets" / "nats"
    made = identity.create(directory)
    content = {file.name: file.read_text() for file in directory.iterdir()}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    assert identity.create(directory) == made
    assert {file.name: file.read_text() for file in directory.iterdir()} == content


def test_an_identity_whose_making_was_interrupted_is_made_anew(tmp_path, monkeypatch):
    written: list[str] = []
    write = identity.write_secret

    def interrupted(path, text):
        if len(written) == 4:
            raise ConfigError("STATE_NOT_WRITABLE", why="full")
        written.append(path.name)
        write(path, text)

    monkeypatch.setattr(identity, "write_secret", interrupted)
    with pytest.raises(ConfigError):
        identity.create(tmp_path)
    monkeypatch.setattr(identity, "write_secret", write)
    made = identity.create(tmp_path)
    assert made.creds_file("admin").exists()
    assert jwt.claims_of((tmp_path / "account.jwt").read_text())["sub"] == made.account_file.read_text()


class TestTheRoles:
    async def test_the_orchestrator_keeps_state_and_reads_jobs_but_writes_none(self, server, bus_to):
        orchestrator, provisioner = await bus_to(server), await bus_to(server, "provisioner")
        await (await provisioner.bucket("jobs")).put("job.x", b"1")
        await (await orchestrator.bucket("state")).put("node.x", b"1")
        await (await orchestrator.ledger()).append("decision", "default", b"1")
        jobs = await orchestrator.bucket("jobs")
        assert (await jobs.get("job.x")).value == b"1"
        assert len(await jobs.entries("job.")) == 1
        with pytest.raises(Unavailable):
            await jobs.put("job.x", b"2")
        assert orchestrator.errors["permission"] == 1

    async def test_the_provisioner_works_on_the_queue_and_hears_final_heartbeats(self, server, bus_to):
        provisioner, node = await bus_to(server, "provisioner"), await bus_to.node(server, credentials(server))
        queue = await provisioner.queue()
        op_id = ids.new_op_id()
        await queue.put(op_id)
        work = await queue.take(5)
        await work.extend()
        await work.done()
        assert work.op_id == op_id
        heard: list[bytes] = []
        await provisioner.messaging.subscribe(subjects.HEARTBEATS, lambda _, payload: heard.append(payload))
        await provisioner.messaging.publish(subjects.job_hint(op_id), b"")
        for _ in range(100):
            await node.messaging.publish(subjects.heartbeat(ME), b"last")
            if heard:
                break
            await asyncio.sleep(0.05)
        assert heard
        await (await bus_to(server)).ledger()
        await provisioner.ledger_of_the_orchestrator().append("audit_provisioner", "_", b"1")
        assert provisioner.errors.get("permission", 0) == 0

    @pytest.mark.parametrize(
        "subject",
        [
            "$KV.state.node.x",
            subjects.heartbeat(ME),
            subjects.command(ME, "terminate"),
            "secbeat.ledger.audit._",
            "secbeat.ledger.audit_provisioners._",
            "$JS.API.STREAM.DELETE.KV_jobs",
            "$JS.API.STREAM.PURGE.JOBS",
            "$JS.API.STREAM.MSG.GET.KV_state",
        ],
    )
    async def test_the_provisioner_cannot_touch_state_nor_speak_for_nodes(self, server, bus_to, subject):
        provisioner = await bus_to(server, "provisioner")
        await provisioner.messaging.publish(subject, b"x")
        await until(lambda: provisioner.errors.get("permission") == 1)

    @pytest.mark.parametrize("role", ["orchestrator", "provisioner"])
    @pytest.mark.parametrize("inbox", ["_INBOX.>", f"_INBOX.{ME}.>", "$SYS.>"])
    async def test_no_service_listens_to_the_replies_of_others(self, server, bus_to, role, inbox):
        bus = await bus_to(server, role)
        await bus.messaging.subscribe(inbox, lambda *_: None)
        await until(lambda: bus.errors.get("permission") == 1)

    async def test_the_admin_may_do_everything(self, server, bus_to):
        admin = await bus_to(server, "admin")
        await (await admin.bucket("state")).put("node.x", b"1")
        await (await admin.bucket("jobs")).put("job.x", b"1")
        await listening(admin)
        assert admin.errors.get("permission", 0) == 0


class TestClientsWithoutALogin:
    async def test_are_refused_by_default(self, server):
        with pytest.raises(ConfigError, match="NATS_AUTH"):
            await connect(NatsSettings(url=server.url), name="x", jetstream=False)

    async def test_may_use_the_originals_subjects_and_nothing_else_when_they_are_opened(self, tmp_path, bus_to):
        server = NatsServer(tmp_path / "nats", port=0, legacy_no_auth=True)
        await server.start()
        try:
            heard = await listening(await bus_to(server))
            legacy = await bus_to(server, role=None, jetstream=False)
            await legacy.messaging.publish(subjects.LEGACY_WAF_EVENTS, b"waf")
            await legacy.messaging.publish(f"secbeat.telemetry.{ME}", b"telemetry")
            assert (await heard_next(heard))[1] == b"waf"
            assert (await heard_next(heard))[1] == b"telemetry"
            for number, subject in enumerate([subjects.heartbeat(ME), "$KV.state.x", "$JS.API.INFO"], 1):
                await legacy.messaging.publish(subject, b"forged")
                await until(lambda wanted=number: legacy.errors.get("permission") == wanted)
            for subject in (subjects.LEGACY_CONTROL, subjects.LEGACY_BLOCK):
                await legacy.messaging.subscribe(subject, lambda *_: None)
            await legacy.messaging.subscribe("secbeat.>", lambda *_: None)
            await until(lambda: legacy.errors.get("permission") == 4)
            assert heard.empty()
        finally:
            await server.stop()

    async def test_a_forged_or_ended_login_is_not_taken_for_none(self, tmp_path):
        server = NatsServer(tmp_path / "nats", port=0, legacy_no_auth=True)
        await server.start()
        try:
            stranger, _ = jwt.new_keys(jwt.ACCOUNT)
            seed, public = identity.new_user_keys()
            account = server.identity.account_file.read_text()
            forged = identity.mint_node_user(stranger, account, ME, public, 60, time.time())
            for wrong in (NodeCredentials(forged, seed), credentials(server, ttl=-1)):
                with pytest.raises(ConfigError, match="NATS_AUTH"):
                    await connect(NatsSettings(url=server.url), name="x", jetstream=False, credentials=wrong)
        finally:
            await server.stop()
