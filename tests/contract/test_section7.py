"""Webhooks: an original's orchestrator at our provisioner, our orchestrator at an original's receiver."""

from __future__ import annotations

import asyncio
import json

import pytest

from secbeat import ids
from secbeat.settings import OrchestratorSettings
from secbeat.testing.waiting import until
from tests.contract import raw
from tests.contract.original import serde
from tests.contract.original.programs import Receiver, Server
from tests.contract.raw import Message

row = pytest.mark.row
OK = Message("HTTP/1.1 200 OK", (("content-length", "0"),), b"")


def body(name, **changes):
    return json.loads(raw.request(name).body) | changes


def recordings(name):
    return [json.loads(json.loads(line)["body"]) for line in raw.recorded(f"webhooks_{name}.jsonl").splitlines()]


@pytest.fixture
async def receiver():
    server = await Receiver().start()
    yield server
    await server.close()


@pytest.fixture
async def serve():
    """Starts a receiver that answers as told."""
    made = []

    async def start(answer):
        made.append(await Server(answer).start())
        return made[-1]

    yield start
    for one in made:
        await one.close()


async def called(fleet, url, *, pool=None, **options):
    """Our orchestrator, with fewer nodes than its minimum, and a webhook on its way to ``url``."""
    return await fleet(
        pool={"min": 1, **(pool or {})}, real_webhooks=options, provisioning_webhook_url=f"{url}/provision"
    )


async def a_fleet_of_ours(fleet, size, **pool):
    ours = await fleet(pool={"min": size, "warmup_seconds": 0, "scaling_check_interval_seconds": 60, **pool})
    await ours.until(lambda: len(ours.world.active()) == size)
    await ours.until(lambda: not ours.core.operations(open_only=True))
    ours.world.receiver.calls.clear()
    return ours


# ---------------------------------------------------------------- an original's orchestrator


@row("7.request.from-orchestrator")
async def test_the_recorded_request_is_accepted_byte_for_byte(provisioner):
    ours = await provisioner()
    sent = raw.request("webhook_predicted")
    assert sent.names == ["content-type", "accept", "host", "content-length"]
    assert (await ours.ask(raw.recorded("webhook_predicted.request.bin"))).status == 202
    (job,) = await ours.jobs()
    assert (job.action, job.signed, job.pool) == ("create", False, "default")


@row("7.success.from-orchestrator")
async def test_it_is_told_success_by_a_2xx(provisioner):
    ours = await provisioner()
    first = await ours.provision(body("webhook_predicted"))
    again = await ours.provision(body("webhook_predicted"))
    assert (first.status, again.status) == (202, 200)


@row("7.retry.from-orchestrator")
async def test_the_same_bytes_are_one_request_and_a_later_one_is_another(provisioner):
    ours = await provisioner()
    sent = raw.recorded("webhook_predicted.request.bin")
    for _ in range(3):
        await ours.ask(sent)
    (job,) = await ours.jobs()
    await ours.finish(job)
    assert (await ours.ask(sent)).status == 200
    later = body("webhook_predicted", timestamp="2026-11-23T17:53:54.440712694Z")
    assert (await ours.provision(later)).status == 202
    assert len(await ours.jobs()) == 2


@row("7.scale_up.from-orchestrator")
async def test_the_recorded_scale_up_becomes_a_create(provisioner):
    ours = await provisioner()
    await ours.ask(raw.recorded("webhook_predicted.request.bin"))
    (job,) = await ours.jobs()
    assert (job.reason, job.failed_node_id) == ("PREDICTED_HIGH_FLEET_CPU_LOAD", None)


@row("7.scale_up.null_prediction.from-orchestrator")
@pytest.mark.parametrize("prediction", [None, "absent"])
async def test_a_scale_up_without_a_prediction_is_accepted(provisioner, prediction):
    sent = body("webhook_predicted", prediction_info=None)
    if prediction == "absent":
        del sent["prediction_info"]
    assert (await (await provisioner()).provision(sent)).status == 202


@row("7.scale_up.f32.from-orchestrator")
@pytest.mark.parametrize("cpu", [0.9, 66.12971, 0.8747319, 7.0, 100.0])
async def test_short_digits_percent_and_fraction_are_accepted(provisioner, cpu):
    sent = body("webhook_predicted")
    sent["fleet_metrics"]["avg_cpu_usage"] = sent["prediction_info"]["predicted_cpu_usage"] = cpu
    assert (await (await provisioner()).provision(sent)).status == 202
    seen = {one["fleet_metrics"]["avg_cpu_usage"] for one in recordings("idle7pct")}
    assert seen == {7.0}


@row("7.failure.from-orchestrator")
async def test_the_recorded_failure_becomes_a_replacement(provisioner):
    ours = await provisioner()
    sent = raw.request("webhook_failure").json()
    assert list(sent) == sorted(sent)
    assert "fleet_metrics" not in sent
    assert (await ours.ask(raw.recorded("webhook_failure.request.bin"))).status == 202
    (job,) = await ours.jobs()
    assert (job.reason, job.failed_node_id) == ("UNEXPECTED_NODE_FAILURE", sent["failed_node_id"])


@row("7.guide_reason.from-orchestrator")
async def test_the_guides_reason_is_accepted(provisioner):
    ours = await provisioner()
    sent = body("webhook_predicted", reason="HIGH_FLEET_CPU_LOAD")
    del sent["prediction_info"]
    assert (await ours.provision(sent)).status == 202
    assert (await ours.jobs())[0].reason == "HIGH_FLEET_CPU_LOAD"


# ---------------------------------------------------------------- an original's receiver


@row("7.request.to-receiver")
async def test_our_webhook_is_a_post_of_json_to_the_configured_url(fleet, receiver):
    ours = await called(fleet, receiver.url)
    await ours.until(lambda: receiver.requests)
    sent, recorded = receiver.requests[0], raw.request("webhook_predicted")
    assert sent.first == recorded.first
    assert sent.header("content-type") == recorded.header("content-type")
    assert sent.header("content-length") == str(len(sent.body))


@row("7.success.to-receiver")
@pytest.mark.parametrize(
    ("first", "content"), [("200 OK", b"OK"), ("201 Created", b"{}"), ("202 Accepted", b"["), ("204 No Content", b"")]
)
async def test_any_2xx_is_an_acceptance_and_is_never_sent_again(fleet, serve, first, content):
    server = await serve(lambda _: Message(f"HTTP/1.1 {first}", (("content-length", "0"),), content))
    ours = await called(fleet, server.url)
    await ours.until(lambda: ours.world.operations()[0].tracked is False)
    await ours.world.clock.advance(300)
    assert len(server.requests) == 1
    assert ours.world.operations()[0].state == "booting"


@row("7.retry.to-receiver")
async def test_it_is_retried_with_one_key_until_it_is_accepted(fleet, serve):
    answers = [Message("HTTP/1.1 500 X", (("content-length", "0"),), b"")] * 2
    server = await serve(lambda _: answers.pop() if answers else OK)
    ours = await called(fleet, server.url)
    await ours.until(lambda: len(server.requests) == 3)
    await ours.world.clock.advance(120)
    keys = [one.header("idempotency-key") for one in server.requests]
    assert keys == [ours.world.operations()[0].op_id] * 3


@row("7.timeout.to-receiver")
async def test_a_receiver_that_does_not_answer_in_time_is_asked_again_with_the_same_key(fleet, serve):
    assert OrchestratorSettings().webhook_timeout_seconds == 15
    answers = [None]
    server = await serve(lambda _: answers.pop() if answers else OK)
    ours = await called(fleet, server.url, timeout_seconds=lambda: 0.2)
    async with asyncio.timeout(10):
        await until(lambda: ours.world.operations()[0].error is not None)
    assert ours.world.operations()[0].error.code == "WEBHOOK_TIMEOUT"
    await ours.until(lambda: ours.world.operations()[0].state == "booting")
    assert len({one.header("idempotency-key") for one in server.requests}) == 1


@row("7.redirects.to-receiver")
async def test_neither_a_redirect_nor_a_proxy_of_the_environment_is_followed(fleet, serve, receiver, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", receiver.url)
    headers = (("location", f"{receiver.url}/provision"), ("content-length", "0"))
    server = await serve(lambda _: Message("HTTP/1.1 307 Temporary Redirect", headers, b""))
    ours = await called(fleet, server.url)
    await ours.until(lambda: server.requests)
    await ours.until(lambda: ours.world.operations()[0].error is not None)
    assert receiver.requests == []


@row("7.scale_up.to-receiver")
async def test_a_scale_up_says_what_is_and_predicts_nothing(fleet):
    ours = await a_fleet_of_ours(fleet, 1)
    ours.world.load(0.95)
    await ours.until(lambda: ours.world.receiver.calls)
    sent = ours.world.receiver.calls[0].body
    assert sent["reason"] == "HIGH_FLEET_CPU_LOAD"
    assert "prediction_info" not in sent
    assert sent["fleet_metrics"]["avg_cpu_usage"] == pytest.approx(0.95)


@row("7.failure.to-receiver")
async def test_a_replacement_has_the_originals_four_keys(fleet):
    ours = await a_fleet_of_ours(fleet, 3, scaling_check_interval_seconds=10)
    await ours.world.clock.advance(30)
    victim = ours.world.active()[0]
    ours.world.crash(victim)
    await ours.until(lambda: ours.world.receiver.called("/provision"))
    sent = ours.world.receiver.calls[0].body
    assert set(sent) == {*raw.request("webhook_failure").json(), "operation"}
    assert (sent["reason"], sent["failed_node_id"]) == ("UNEXPECTED_NODE_FAILURE", victim)


@row("7.receiver.reads.to-receiver")
async def test_the_repositorys_receiver_finds_every_field_that_it_reads(fleet, receiver):
    ours = await called(fleet, receiver.url)
    await ours.until(lambda: receiver.requests)
    sent = receiver.requests[0].json()
    assert serde.utc(sent["timestamp"])
    assert type(sent["reason"]) is str
    assert serde.FleetMetrics.read(json.dumps(sent["fleet_metrics"]).encode())


@row("7.receiver.answer.to-receiver")
async def test_its_recorded_answer_is_an_acceptance(fleet, receiver):
    assert raw.split(raw.recorded("webhook.response.bin"))[0].json()["status"] == "success"
    ours = await called(fleet, receiver.url)
    await ours.until(lambda: ours.world.operations()[0].state == "booting")
    assert ours.world.operations()[0].tracked is False


@row("7.constants.checks.to-receiver")
async def test_up_after_two_checks_down_after_five_every_sixty_seconds(fleet):
    ours = await a_fleet_of_ours(fleet, 1, scale_down_cooldown_seconds=0)
    start = ours.world.clock.monotonic()
    ours.world.load(0.95)
    await ours.until(lambda: ours.world.receiver.called("/provision"))
    assert 60 < ours.world.clock.monotonic() - start <= 121
    await ours.until(lambda: len(ours.world.active()) == 2)
    await ours.until(lambda: not ours.core.operations(open_only=True))
    start = ours.world.clock.monotonic()
    ours.world.load(0.01)
    await ours.until(lambda: ours.world.nodes.terminated, seconds=600)
    assert 240 < ours.world.clock.monotonic() - start <= 301


@row("7.constants.prediction.to-receiver")
async def test_a_load_that_falls_and_is_still_high_scales_up(fleet):
    ours = await a_fleet_of_ours(fleet, 1)
    for cpu in (0.99, 0.95, 0.90, 0.85):
        ours.world.load(cpu)
        await ours.world.clock.advance(40)
    assert ours.world.receiver.called("/provision")


@row("7.constants.target.to-node")
async def test_the_node_with_the_fewest_connections_leaves(fleet):
    ours = await a_fleet_of_ours(fleet, 3, scale_down_cooldown_seconds=0)
    nodes = list(ours.world.nodes.all.values())
    for node, connections in zip(nodes, (9, 2, 5), strict=True):
        node.connections = connections
    ours.world.load(0.01)
    ours.core.settings.pools["default"] = ours.core.settings.pools["default"].model_copy(update={"min": 1})
    await ours.until(lambda: ours.world.nodes.terminated, seconds=600)
    assert ours.world.nodes.terminated[0][0] == nodes[1].node_id
    assert ids.check_uuid(nodes[1].node_id)
