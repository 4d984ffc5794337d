"""NATS: which of the original's subjects are spoken, and which are not yet."""

from __future__ import annotations

import json

import pytest

from orchestrator.app import main as orchestrator_main
from secbeat import subjects
from secbeat.errors import SecbeatError
from secbeat.service import Stop
from secbeat.settings import Loaded, Settings
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
