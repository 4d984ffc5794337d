"""NATS: which of the original's subjects are spoken, and which are not yet."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from orchestrator.app import main as orchestrator_main
from secbeat import bus, subjects
from secbeat.bus.server import NatsServer
from secbeat.errors import SecbeatError
from secbeat.service import Stop
from secbeat.settings import Loaded, NatsSettings, Settings
from secbeat.testing.messaging import matches
from tests.contract import raw
from tests.contract.original import serde
from tests.contract.original.programs import Orchestrator

row = pytest.mark.row
BLOCK = "secbeat.commands.block"


def publications(name):
    """(subject, payload) of every PUB in a recorded stream of a NATS client."""
    found, stream = [], raw.recorded(f"nats_{name}.bin")
    while stream:
        line, _, stream = stream.partition(b"\r\n")
        if line.startswith(b"PUB "):
            _, subject, length = line.decode().split()
            found.append((subject, json.loads(stream[: int(length)])))
            stream = stream[int(length) + 2 :]
    return found


def listeners(messaging, subject):
    return [one.pattern for one in messaging.exchange if matches(one.pattern, subject)]


def published(messaging, subject):
    return [json.loads(payload) for name, payload in messaging.published if name == subject]


@pytest.fixture
async def joined(node):
    """Our node at an original orchestrator, its NATS connection up, some heartbeats later."""
    original = await Orchestrator().start()
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: len(original.beats) >= 3)
    yield ours
    await original.close()


@row("8.url.to-orchestrator")
def test_the_url_is_the_originals():
    assert Settings().nats.url == "nats://127.0.0.1:4222"


@pytest.fixture
async def nats(tmp_path):
    """Starts a real server."""
    made = []

    async def start(**options):
        made.append(NatsServer(tmp_path / "nats", port=0, **options))
        await made[-1].start()
        return made[-1]

    yield start
    for server in made:
        await server.stop()


class OriginalClient:
    """The recorded NATS client of the original's node, byte for byte."""

    async def connect(self, url):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        return self

    async def line(self):
        """The next line that is no matter between server and client library."""
        async with asyncio.timeout(10):
            while (line := await self._reader.readuntil(b"\r\n")).startswith((b"PING", b"INFO")):
                if line.startswith(b"PING"):
                    self._writer.write(b"PONG\r\n")
        return line

    def send(self, content):
        self._writer.write(content)

    async def close(self):
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


@pytest.fixture
async def original_client():
    made = []

    async def connect(url):
        made.append(await OriginalClient().connect(url))
        return made[-1]

    yield connect
    for client in made:
        await client.close()


@pytest.fixture
async def our_bus():
    made = []

    async def connect(server):
        settings = NatsSettings(url=server.url, creds_file=server.identity.creds_file("orchestrator"))
        made.append(await bus.connect(settings, name="orchestrator"))
        return made[-1]

    yield connect
    for one in made:
        await one.close()


@row("8.session.to-node")
async def test_the_recorded_client_is_let_in_to_its_own_subjects(nats, original_client, our_bus):
    stream = raw.recorded("nats_node.bin")
    greeting, _, rest = stream.partition(b"PING\r\n")
    subscribe = rest.partition(b"\r\n")[0] + b"\r\n"
    event = stream[stream.index(b"PUB ") : stream.index(b"PUB ", stream.index(b"PUB ") + 1)]
    server = await nats(legacy_no_auth=True)
    ours = await our_bus(server)
    client = await original_client(server.url)
    client.send(greeting + b"PING\r\n" + subscribe + event + b"PING\r\n")
    assert [await client.line(), await client.line()] == [b"PONG\r\n"] * 2, "nothing was refused"
    (_, command) = publications("orchestrator")[0]
    await ours.messaging.publish(subjects.LEGACY_CONTROL, json.dumps(command).encode())
    assert (await client.line()).startswith(b"MSG secbeat.control.commands 1 ")
    assert json.loads(await client.line()) == command
    client.send(b"PUB secbeat.hb.x 2\r\n{}\r\n")
    assert b"Permissions Violation" in await client.line()


@row("8.waf_events.from-node")
async def test_nobody_listens_to_waf_events(fleet):
    ours = await fleet()
    subject, event = publications("node")[0]
    assert (subject, event["waf_result"]["action"]) == (subjects.LEGACY_WAF_EVENTS, "LOG")
    assert listeners(ours.world.messaging, subject) == []


@row("8.waf_events.to-orchestrator")
async def test_our_node_publishes_no_waf_events(joined):
    assert published(joined.messaging, subjects.LEGACY_WAF_EVENTS) == []


@row("8.telemetry.from-node")
async def test_nobody_listens_to_telemetry(fleet):
    ours = await fleet()
    assert listeners(ours.world.messaging, "secbeat.telemetry.550d7b95-4310-40ca-a9d4-4eb58650389f") == []


@row("8.telemetry.to-orchestrator")
async def test_our_node_publishes_no_telemetry(joined):
    assert not [name for name, _ in joined.messaging.published if name.startswith("secbeat.telemetry.")]


@row("8.control_commands.to-node")
async def test_a_block_and_its_removal_are_commands_that_the_originals_node_reads(fleet):
    ours = await fleet()
    await ours.ask(raw.recorded("block_ip.request.bin"))
    removal = raw.original("DELETE", "/api/v1/rules/block_ip/203.0.113.7", token="operator-token")
    assert (await ours.ask(removal)).status == 200
    added, removed = published(ours.world.messaging, subjects.LEGACY_CONTROL)
    ((_, recorded),) = publications("orchestrator")
    assert added.keys() >= recorded.keys()
    for name in ("action", "rule_type", "target", "ttl_seconds"):
        assert added[name] == recorded[name]
    assert serde.utc(added["timestamp"])
    for message, action in ((added, "ADD_DYNAMIC_RULE"), (removed, "REMOVE_DYNAMIC_RULE")):
        assert serde.ControlCommand.read(json.dumps(message).encode()).action == action


@row("8.control_commands.from-orchestrator")
async def test_our_node_does_not_listen_to_control_commands(joined):
    assert listeners(joined.messaging, subjects.LEGACY_CONTROL) == []


@row("8.commands_block.to-node")
async def test_no_block_of_a_behavioural_expert_is_published(fleet):
    ours = await fleet()
    await ours.ask(raw.recorded("block_ip.request.bin"))
    await ours.world.clock.advance(120)
    assert published(ours.world.messaging, BLOCK) == []


@row("8.commands_block.from-orchestrator")
async def test_our_node_does_not_listen_to_block_commands(joined):
    assert listeners(joined.messaging, BLOCK) == []


@row("8.orchestrator_ban.from-orchestrator")
async def test_nobody_subscribes_to_orchestrator_ban(fleet, joined):
    ours = await fleet()
    assert listeners(ours.world.messaging, "orchestrator.ban") == []
    assert listeners(joined.messaging, "orchestrator.ban") == []


@row("8.state_sync.from-node")
async def test_nobody_speaks_state_sync(fleet, joined):
    ours = await fleet()
    assert listeners(ours.world.messaging, "secbeat.state.sync") == []
    assert listeners(joined.messaging, "secbeat.state.sync") == []
    assert published(joined.messaging, "secbeat.state.sync") == []


@row("8.node_id.from-node")
async def test_an_id_on_nats_that_no_registration_gave_makes_no_node(fleet):
    ours = await fleet()
    for subject, event in publications("node"):
        await ours.world.messaging.linked().publish(subject, json.dumps(event).encode())
    ours.core.registry.on_frame(subjects.heartbeat(event["node_id"]), json.dumps(event).encode())
    assert len(ours.core.registry) == 0


@row("8.no_scaling.to-node")
async def test_a_whole_termination_of_an_originals_node_puts_nothing_on_its_subjects(fleet, original_node):
    management, source = await original_node()
    ours = await fleet(real_nodes=True)
    ours.source = source
    node_id = await ours.register()
    await ours.beat(node_id)
    await ours.post(f"/api/v1/nodes/{node_id}/terminate", token="operator-token")
    await ours.until(lambda: management.terminated)
    for name, _ in ours.world.messaging.published:
        assert not name.startswith(("secbeat.cmd.", "secbeat.control.", "secbeat.commands."))


@row("8.nats_down.from-client")
async def test_the_orchestrator_ends_when_nats_is_down_at_its_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate({
        "orchestrator": {"listen_addr": "127.0.0.1:0", "metrics_addr": "127.0.0.1:0", "state_dir": str(tmp_path)},
        "nats": {"url": "nats://127.0.0.1:9", "connect_timeout_seconds": 0.3},
    })  # fmt: skip
    with pytest.raises(SecbeatError) as refused:
        await orchestrator_main(Stop(), Loaded(settings=settings, path=None, sources={}))
    assert "nats" in refused.value.why.lower()
