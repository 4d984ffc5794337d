"""Interoperation: an original's node in our fleet, an original's orchestrator above our node and our provisioner."""

from __future__ import annotations

import asyncio
import json

import pytest

from node import checks
from secbeat import subjects
from secbeat.errors import ConfigError
from secbeat.settings import ManagementSettings, NodeSettings
from secbeat.testing import settle
from secbeat.wire.jobs import Machine, MachineRecord
from secbeat.wire.registration import RegisterRequest
from tests.contract import raw
from tests.contract.original import serde
from tests.contract.original.programs import TOKEN, Orchestrator
from tests.contract.ours.fleet import IDENTITY, heartbeat, registration

row = pytest.mark.row


@pytest.fixture
async def original():
    server = await Orchestrator().start()
    yield server
    await server.close()


@pytest.fixture
async def member(node, original):
    """Our node at an original's orchestrator, after its first heartbeat."""
    ours = await node(server_url=original.url)
    ours.run()
    await ours.until(lambda: original.beats)
    return ours


# ---------------------------------------------------------------- 11.1: an original's node in our fleet


@row("11.1.1.from-node")
async def test_registration_is_answered_as_the_original_node_needs_it(fleet):
    answer = await (await fleet()).post("/api/v1/nodes/register", registration())
    assert serde.Registered.read(answer.body).assigned_config is None
    assert set(answer.json()) == {"node_id", "heartbeat_interval", "endpoints"}


@row("11.1.2.from-node")
async def test_a_node_that_says_loopback_is_dialled_where_it_called_from(fleet):
    ours = await fleet(legacy_nodes=["10.0.0.0/8"])
    request = RegisterRequest.model_validate(registration())
    answer = await ours.core.register(request, peer="10.1.2.3", host="x", token=None)
    shown = ours.core.registry.view(answer.node_id)
    assert (shown.public_ip, shown.address, shown.management_port) == ("10.1.2.3", "10.1.2.3", 9999)
    told = request.model_copy(update={"public_ip": "192.0.2.9"})
    other = await ours.core.register(told, peer="10.1.2.4", host="x", token=None)
    assert ours.core.registry.view(other.node_id).public_ip == "192.0.2.9"


@row("11.1.3.known.from-node")
async def test_after_our_restart_a_nodes_heartbeats_go_on_as_if_nothing_had_been(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat(node_id)
    before = await ours.node(node_id)
    await ours.restart()
    assert ours.state(node_id) == "active"
    assert await ours.beat(node_id) == 200
    after = await ours.node(node_id)
    assert (after["registered_at"], after["state"], after["config"]) == (
        before["registered_at"], before["state"], before["config"],
    )  # fmt: skip
    assert len((await ours.get("/api/v1/nodes")).json()) == 1


@row("11.1.3.adopted.from-node")
async def test_a_node_whose_record_is_lost_is_adopted_and_stays_adopted(fleet):
    ours = await fleet()
    answers = await raw.exchange(ours.port, raw.recorded("node_session.request.bin"), answers=4)
    assert [one.status for one in answers] == [200] * 4
    assert ours.state(IDENTITY) == "active"
    await ours.restart()
    assert await ours.beat(IDENTITY) == 200
    assert ours.state(IDENTITY) == "active"
    shown = await ours.node(IDENTITY)
    assert (shown["legacy"], shown["public_ip"], shown["management_port"]) == (True, "127.0.0.1", 9999)


@row("11.1.4.starting.from-node")
async def test_starting_is_a_heartbeat_like_any_other(fleet):
    ours = await fleet()
    node_id = await ours.register()
    assert await ours.beat(node_id, "Starting") == 200
    assert ours.state(node_id) == "active"


@row("11.1.4.dead.from-node")
async def test_a_received_dead_is_proof_of_life(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat(node_id)
    await ours.until(lambda: ours.state(node_id) == "unreachable", seconds=600)
    await ours.beat(node_id, "Dead")
    await ours.until(lambda: ours.state(node_id) == "active", seconds=5)
    await ours.beat_for(node_id, 900, every=60, status="Dead")
    assert ours.state(node_id) == "active"


@row("11.1.4.draining.from-node")
async def test_a_received_draining_is_no_drain(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat_for(node_id, 900, every=30, status="Draining")
    assert ours.state(node_id) == "active"
    assert ours.world.operations("destroy") == []
    assert (await ours.get("/api/v1/fleet/stats")).json()["active_nodes"] == 1


@pytest.mark.parametrize(
    "interval",
    [
        pytest.param(30, marks=row("11.1.5.30_seconds.from-node")),
        pytest.param(60, marks=row("11.1.5.60_seconds.from-node")),
    ],
)
async def test_a_node_is_silent_after_three_of_its_own_intervals(fleet, interval):
    ours = await fleet()
    node_id = await ours.register()
    for _ in range(20):
        assert await ours.beat(node_id) == 200
        await ours.world.clock.advance(interval)
        shown = await ours.node(node_id)
        assert (shown["state"], shown["silent"]) == ("active", False)
    await ours.world.clock.advance(1.9 * interval)
    assert (await ours.node(node_id))["silent"] is False
    await ours.world.clock.advance(0.2 * interval)
    assert (await ours.node(node_id))["silent"] is True


@row("11.1.6.from-node")
async def test_our_answer_to_a_heartbeat_is_empty(fleet):
    ours = await fleet()
    answer = await ours.post("/api/v1/nodes/heartbeat", heartbeat(await ours.register()))
    assert (answer.status, answer.body) == (200, b"")


@row("11.1.7.from-node")
async def test_load_is_percent_and_requests_are_differences(fleet):
    ours = await fleet()
    node_id = await ours.register()
    await ours.beat(node_id, cpu_usage=66.13, total_requests=1000)
    await ours.world.clock.advance(30)
    await ours.beat(node_id, cpu_usage=66.12, total_requests=4000)
    shown = await ours.node(node_id)
    assert (shown["cpu"], shown["rps"]) == (pytest.approx(0.6612), pytest.approx(100.0))


@row("11.1.8.from-node")
async def test_events_of_a_node_that_never_beats_make_it_no_member(fleet):
    ours = await fleet()
    payload = raw.recorded("nats_node.bin").partition(b"PUB secbeat.events.waf")[2].split(b"\r\n")[1]
    assert json.loads(payload)["node_id"] == IDENTITY
    await ours.world.messaging.linked().publish(subjects.LEGACY_WAF_EVENTS, payload)
    await settle()
    assert (await ours.get("/api/v1/nodes?all=1")).json() == []


# ---------------------------------------------------------------- 11.2: our node under an original's orchestrator


@row("11.2.1.to-orchestrator")
async def test_at_no_time_are_there_more_than_ten_seconds_between_two_heartbeats(node, original):
    original.interval = 60
    member = await node(server_url=original.url)
    member.run()
    await member.until(lambda: original.beats)
    last = member.clock.monotonic()
    for _ in range(8):
        seen = len(original.beats)
        await member.until(lambda: len(original.beats) > seen)  # noqa: B023 - awaited at once
        assert member.clock.monotonic() - last <= 10.5
        last = member.clock.monotonic()


@row("11.2.2.to-orchestrator")
async def test_our_node_never_says_starting(member, original):
    await member.until(lambda: len(original.beats) >= 5)
    member.drain.begin(reason="x")
    await member.until(lambda: original.beats[-1].status == "Draining")
    await member.agent.goodbye()
    assert {beat.status for beat in original.beats} == {"Active", "Draining", "Terminating"}


@row("11.2.3.to-orchestrator")
async def test_on_404_our_node_registers_and_goes_on_under_the_new_id(member, original):
    original.known.clear()
    await member.until(lambda: original.known)
    await member.until(lambda: str(original.beats[-1].node_id) == original.known[0])
    assert len(original.registered) == 2


@row("11.2.4.to-orchestrator")
async def test_the_last_thing_that_the_original_hears_is_terminating(member, original):
    await member.ask(raw.recorded("terminate.request.bin"))
    await member.until(lambda: member.drain.phase == "done")
    await member.agent.goodbye()
    assert original.beats[-1].status == "Terminating"


@row("11.2.5.literal_token.from-orchestrator")
async def test_the_originals_call_works_on_a_node_that_knowingly_has_its_token(member):
    management = ManagementSettings(auth_token=TOKEN, allow_default_token=True)
    member.token = checks.configured_token(management)
    assert management.listen_addr == "127.0.0.1:9999"
    assert NodeSettings().public_ip == "127.0.0.1"
    assert (await member.ask(raw.recorded("terminate.request.bin"))).status == 202


@row("11.2.5.refused.from-orchestrator")
def test_the_literal_token_is_refused_unless_it_is_switched_on(tmp_path):
    with pytest.raises(ValueError, match="published token"):
        ManagementSettings(auth_token=TOKEN)
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    with pytest.raises(ConfigError) as refused:
        checks.configured_token(ManagementSettings(auth_token_file=file))
    assert refused.value.code == "SECRET_PLACEHOLDER"


@row("11.2.6.to-orchestrator")
async def test_a_drain_is_told_at_once_and_with_every_heartbeat(member, original):
    await member.ask(raw.recorded("terminate.request.bin"))
    began, seen = member.clock.monotonic(), len(original.beats)
    await member.until(lambda: original.beats[-1].status == "Draining")
    assert member.clock.monotonic() - began <= 1.0
    await member.until(lambda: len(original.beats) >= seen + 3)
    assert {beat.status for beat in original.beats[seen + 1 :]} == {"Draining"}


@row("11.2.7.from-orchestrator")
async def test_terminate_is_answered_before_the_drain_has_done_anything_that_takes_time(member):
    member.plane.in_flight = 50
    async with asyncio.timeout(5):
        answer = await member.ask(raw.recorded("terminate.request.bin"))
    assert answer.status == 202
    assert member.clock.monotonic() < 1.0


# ---------------------------------------------------------------- 11.3: our provisioner behind it


@row("11.3.1.from-orchestrator")
async def test_all_three_payloads_are_accepted_one_after_the_other(provisioner):
    ours = await provisioner()
    for name in ("webhook_predicted", "webhook_failure"):
        assert (await ours.ask(raw.recorded(f"{name}.request.bin"))).status == 202
    (scale_up, _) = await ours.jobs()
    await ours.finish(scale_up)
    guide = json.loads(raw.request("webhook_predicted").body) | {"reason": "HIGH_FLEET_CPU_LOAD"}
    del guide["prediction_info"]
    assert (await ours.provision(guide)).status == 202
    assert len(await ours.jobs()) == 3


@row("11.3.2.fast.from-orchestrator")
async def test_it_is_answered_before_anything_has_been_made(provisioner):
    ours = await provisioner()
    async with asyncio.timeout(5):
        answer = await ours.ask(raw.recorded("webhook_predicted.request.bin"))
    assert answer.status == 202
    assert (await ours.jobs())[0].state == "queued"


@row("11.3.2.duplicate.from-orchestrator")
async def test_a_scale_up_that_comes_again_while_the_machine_boots_makes_no_second_one(provisioner):
    ours = await provisioner()
    for line in raw.recorded("webhooks_idle7pct.jsonl").splitlines():
        answer = await ours.provision(json.loads(json.loads(line)["body"]))
        assert answer.status in {200, 202}
    assert len(await ours.jobs()) == 1


@row("11.3.2.failures.from-orchestrator")
async def test_ten_nodes_that_die_together_are_replaced_once_each_and_within_the_limits(provisioner):
    ours = await provisioner()
    bodies = [json.loads(line)["body"].encode() for line in raw.recorded("webhooks_massdie10_ok.jsonl").splitlines()]
    assert len(bodies) == 10
    statuses = [(await ours.provision(body)).status for body in bodies * 2]
    assert statuses[:5] == [202] * 5  # max_machines is 5 here
    assert statuses[10:15] == [200] * 5
    assert {status // 100 for status in statuses[5:10] + statuses[15:]} == {4}
    jobs = await ours.jobs()
    assert len({job.failed_node_id for job in jobs}) == len(jobs) == 5


@row("11.3.3.from-orchestrator")
async def test_a_request_that_was_refused_does_not_stand_in_the_way_of_the_next(provisioner):
    ours = await provisioner(max_machines=0)
    first = json.loads(raw.request("webhook_predicted").body)
    assert (await ours.provision(first)).status >= 400
    ours.parts.limits.settings = ours.parts.limits.settings.model_copy(update={"max_machines": 5})
    assert (await ours.provision(first | {"timestamp": "2026-11-23T17:53:54Z"})).status == 202


class Made:
    """Our provisioner after the recorded scale-up: a machine stands at 127.0.9.1, and its node runs."""

    def __init__(self, ours, job):
        self.ours, self.job = ours, job
        self.open_ports = {"127.0.9.1"}

    async def probe(self, machine):
        return machine.address in self.open_ports

    async def actions(self):
        return [one.action for one in await self.ours.jobs()]


@pytest.fixture
async def made(provisioner):
    ours = await provisioner()
    await ours.ask(raw.recorded("webhook_predicted.request.bin"))
    (job,) = await ours.jobs()
    made = Made(ours, job)
    record = MachineRecord(
        cluster_id=job.cluster_id, node_id=job.node_id, op_id=job.op_id, pool="default", blueprint="default",
        blueprint_digest="d", target="local", signed=False, created_at=ours.clock.now(),
        machine=Machine(id="i", name="n", address="127.0.9.1"),
    )  # fmt: skip
    await ours.parts.store.put_machine(record)
    ours.parts.farewells._probe = made.probe
    listening = asyncio.create_task(ours.parts.farewells.run())
    await ours.clock.advance(12)
    yield made
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


@row("11.3.teardown.from-orchestrator")
async def test_a_machine_whose_node_has_said_goodbye_and_closed_its_port_is_torn_down(made):
    # The original gave the node an id of its own: that is the one under which it says goodbye.
    goodbye = {"v": 1, "node_id": IDENTITY, "status": "Terminating"}
    await made.ours.messaging.linked().publish(subjects.heartbeat(IDENTITY), json.dumps(goodbye).encode())
    await made.ours.clock.advance(30)
    assert await made.actions() == ["create"], "its port is still open"
    made.open_ports.clear()
    await made.ours.clock.advance(30)
    destroy = (await made.ours.jobs())[-1]
    assert (destroy.action, destroy.node_id, destroy.reason) == ("destroy", made.job.node_id, "UNSIGNED_TEARDOWN")


@row("11.3.given_up.from-orchestrator")
async def test_a_machine_whose_node_the_original_has_given_up_is_replaced_and_torn_down(made):
    failed = raw.request("webhook_failure").json() | {"failed_node_ip": "127.0.9.1"}
    assert (await made.ours.provision(failed)).status == 202
    await made.ours.clock.advance(30)
    assert await made.actions() == ["create", "create"], "its port is still open"
    made.open_ports.clear()
    await made.ours.clock.advance(30)
    destroy = (await made.ours.jobs())[-1]
    assert (destroy.action, destroy.node_id) == ("destroy", made.job.node_id)


# ---------------------------------------------------------------- 11.4: our orchestrator towards originals


@row("11.4.1.to-receiver")
async def test_our_payload_is_the_originals_with_one_key_more(fleet):
    ours = await fleet(pool={"min": 1})
    await ours.until(lambda: ours.world.receiver.calls)
    sent = ours.world.receiver.calls[0].body
    recorded = raw.request("webhook_predicted").json()
    assert sent.keys() - recorded.keys() == {"operation"}
    assert recorded.keys() - sent.keys() == {"prediction_info"}


async def told_to_go(ours):
    """An original's node that took an untracked create, and is told to go: (node_id, the destroy operation)."""
    await ours.until(lambda: ours.world.operations("create")[0].tracked is False)
    node_id = await ours.register()
    assert node_id == ours.world.operations("create")[0].node_id
    await ours.beat(node_id)
    await ours.until(lambda: ours.world.operations("create")[0].state == "succeeded")
    pools = ours.core.settings.pools
    pools["default"] = pools["default"].model_copy(update={"min": 0})
    await ours.post(f"/api/v1/nodes/{node_id}/terminate", token="operator-token")
    await ours.until(lambda: ours.world.operations("destroy"))
    return node_id, ours.world.operations("destroy")[0].op_id


@pytest.fixture
async def untracked(fleet, original_node):
    """Our orchestrator in front of a receiver that knows no op_ids, and the port of one original's node."""
    management, source = await original_node()
    ours = await fleet(pool={"min": 1}, real_nodes=True, manner="untracked")
    ours.source = source
    return ours, management


@row("11.4.2.to-node")
async def test_terminate_is_plain_http_with_its_token_three_fields_and_200_expected(untracked):
    ours, management = untracked
    _, op_id = await told_to_go(ours)
    await ours.until(lambda: ours.core.operation(op_id).state == "draining")
    sent = management.requests[0]
    assert sent.header("authorization") == f"Bearer {TOKEN}"
    assert set(sent.json()) == {"reason", "timestamp", "grace_period_seconds"}
    assert serde.utc(management.terminated[0].timestamp)


@row("11.4.3.to-node")
async def test_it_is_shown_as_draining_before_it_is_told(untracked):
    ours, management = untracked
    seen = []
    management.on_request = lambda: seen.append([node.state for node in ours.core.registry.nodes()])
    await told_to_go(ours)
    await ours.until(lambda: management.terminated)
    assert seen[0] == ["draining"]


@row("11.4.4.absence.to-node")
async def test_without_a_last_heartbeat_its_absence_is_waited_for_and_then_its_machine_goes(untracked):
    ours, management = untracked
    node_id, op_id = await told_to_go(ours)
    await ours.until(lambda: ours.core.operation(op_id).state == "draining")
    await management.close()
    assert ours.world.receiver.called("/deprovision") == []
    await ours.until(lambda: ours.world.receiver.called("/deprovision"), seconds=300)
    await ours.until(lambda: ours.state(node_id) is None)
    assert ours.core.operation(op_id).state == "succeeded"


@row("11.4.4.restarted.to-node")
async def test_a_node_started_again_by_its_supervisor_keeps_its_name_and_its_machine_still_goes(untracked):
    ours, management = untracked
    node_id, op_id = await told_to_go(ours)
    await ours.until(lambda: ours.core.operation(op_id).state == "draining")
    await ours.world.clock.advance(5)
    assert await ours.register() == node_id
    passed = 0
    while not ours.world.receiver.called("/deprovision"):
        assert await ours.beat(node_id) == 200
        await asyncio.sleep(0.01)
        await ours.world.clock.advance(10)
        passed += 10
        assert passed < 200
    await ours.until(lambda: ours.core.operation(op_id).ended)
    assert len(ours.world.operations("create")) == 1, "nothing was bought in its place"
    assert len(management.terminated) == 1
    # What may still beat there for a moment is not taken in again.
    assert await ours.beat(node_id) == 404
