"""Serialisation: what the original's deserialiser and ours read of each other."""

from __future__ import annotations

import json
import re
import uuid

import pytest

from secbeat.wire.webhook import UnsignedBody
from tests.contract import raw
from tests.contract.original import serde
from tests.contract.original.programs import Orchestrator
from tests.contract.ours.fleet import IDENTITY, heartbeat, registration

row = pytest.mark.row


@pytest.fixture
async def joined(node):
    """Our node, registered at an original orchestrator that has read one heartbeat."""
    original = await Orchestrator().start()
    ours = await node(server_url=original.url, public_ip="2001:db8::1")
    ours.run()
    await ours.until(lambda: original.beats)
    yield original
    await original.close()


def sent(original, path):
    return next(json.loads(one.body) for one in original.requests if path in one.first)


@row("3.uuid.from-node")
async def test_a_uuid_is_written_in_one_form_and_read_in_each(fleet):
    ours = await fleet()
    node_id = await ours.register()
    assert node_id == str(uuid.UUID(node_id))
    for text in (node_id, node_id.upper(), node_id.replace("-", "")):
        assert (await ours.node(text))["node_id"] == node_id


@row("3.uuid.to-orchestrator")
async def test_our_node_writes_the_uuid_as_it_got_it(joined):
    assert sent(joined, "heartbeat")["node_id"] == joined.known[0]


@row("3.ip.from-node")
@pytest.mark.parametrize(
    ("address", "status"),
    [("10.0.1.7", 200), ("2001:db8::1", 200), ("10.0.0.0/8", 422), ("10.0.0.1:80", 422), ("[2001:db8::1]", 422)],
)
async def test_an_address_is_a_plain_string(fleet, address, status):
    ours = await fleet()
    answer = await ours.post("/api/v1/nodes/register", registration(public_ip=address))
    assert answer.status == status
    if status == 200:
        assert (await ours.node(answer.json()["node_id"]))["public_ip"] == address


@row("3.ip.to-orchestrator")
async def test_our_node_writes_an_address_as_a_plain_string(joined):
    assert sent(joined, "register")["public_ip"] == "2001:db8::1"


@row("3.datetime.out.from-client")
async def test_times_of_the_api_end_in_z(fleet):
    ours = await fleet()
    shown = await ours.node(await ours.register())
    texts = [shown["registered_at"], shown["last_heartbeat"], (await ours.get("/api/v1/health")).json()["timestamp"]]
    assert all(serde.utc(text) for text in texts)


@row("3.datetime.out.to-receiver")
async def test_times_in_webhooks_end_in_z(fleet):
    ours = await fleet(pool={"min": 1})
    await ours.until(lambda: ours.world.receiver.calls)
    assert serde.utc(ours.world.receiver.calls[0].body["timestamp"])


@row("3.datetime.in.from-orchestrator")
@pytest.mark.parametrize(
    "text", ["2026-11-23T17:51:54.440712694Z", "2026-11-23T17:51:54Z", "2026-11-23T17:51:54.123+02:00"]
)
def test_a_time_is_read_with_any_offset_and_number_of_digits(text):
    body = json.loads(raw.request("webhook_failure").body) | {"timestamp": text}
    assert UnsignedBody.decode(json.dumps(body)).timestamp.minute == 51


@row("3.datetime.management.from-orchestrator")
async def test_times_of_the_management_api_end_in_z_as_everywhere(node):
    ours = await node()
    answer = await ours.ask(raw.original("GET", "/health", token=ours.token))
    assert re.fullmatch(r"[-0-9]+T[:0-9]+\.\d{3}Z", answer.json()["timestamp"])


@row("3.float.from-node")
async def test_integers_are_read_for_floats(fleet):
    ours = await fleet()
    node_id = await ours.register()
    assert await ours.beat(node_id, cpu_usage=67, memory_usage=3) == 200
    assert (await ours.node(node_id))["metrics"]["cpu_usage"] == 67.0


@row("3.float.to-orchestrator")
async def test_our_floats_are_floats(joined):
    metrics = sent(joined, "heartbeat")["metrics"]
    assert [type(metrics[name]) for name in ("cpu_usage", "memory_usage")] == [float, float]


@row("3.integer.from-node")
@pytest.mark.parametrize("value", [3.0, 3.5, -1, "3", None, True])
async def test_nothing_but_a_count_is_read_for_a_count(fleet, value):
    ours = await fleet()
    node_id = await ours.register()
    assert await ours.beat(node_id, total_requests=value) == 422
    assert (await ours.node(node_id))["metrics"] is None


@row("3.integer.to-orchestrator")
async def test_our_counts_are_counts(joined):
    metrics = sent(joined, "heartbeat")["metrics"]
    counts = [value for name, value in metrics.items() if name not in {"cpu_usage", "memory_usage"}]
    assert len(counts) == 5
    assert all(type(count) is int and count >= 0 for count in counts)


@row("3.option.from-node")
async def test_an_optional_field_may_be_absent_or_null(fleet):
    ours = await fleet()
    for config in ({"node_type": "x", "tags": []}, {"node_type": "x", "tags": [], "region": None}):
        shown = await ours.node(await ours.register(config=config))
        assert shown["config"] == {"node_type": "x", "region": None, "tags": []}


@row("3.option.to-orchestrator")
async def test_what_our_node_leaves_out_is_read_as_null(joined):
    assert "region" not in sent(joined, "register")["config"]
    assert joined.registered[0].config.region is None


@row("3.unknown_fields.from-node")
async def test_unknown_fields_are_ignored(fleet):
    ours = await fleet()
    node_id = await ours.register(added_later={"x": [1]})
    beat = heartbeat(node_id) | {"added_later": 1}
    assert (await ours.post("/api/v1/nodes/heartbeat", beat)).status == 200


@row("3.unknown_fields.to-orchestrator")
async def test_our_node_in_the_originals_form_sends_no_field_of_its_own(joined):
    assert sent(joined, "register").keys() == serde.Register.model_fields.keys()
    assert sent(joined, "heartbeat").keys() == serde.Heartbeat.model_fields.keys()


@row("3.enum.from-node")
@pytest.mark.parametrize("status", ["active", "ACTIVE", "Active "])
async def test_an_enum_is_case_sensitive(fleet, status):
    ours = await fleet()
    assert await ours.beat(await ours.register(), status) == 422


@row("3.bare_status.from-node")
async def test_a_bare_status_has_an_empty_body(fleet):
    ours = await fleet(legacy_nodes=["127.0.0.0/8"])
    node_id = await ours.register()
    answer = await ours.post("/api/v1/nodes/heartbeat", heartbeat(node_id))
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", "0")
    missing = await ours.get(f"/api/v1/nodes/{IDENTITY}")
    assert (missing.status, missing.body) == (404, b"")


async def replay(ours, name):
    """Our answer to a recorded request, and the recorded one."""
    return await ours.ask(raw.recorded(f"{name}.request.bin")), raw.response(name)


@row("3.fault.content_type.from-client")
async def test_a_missing_content_type_is_415_in_the_originals_words(fleet):
    answer, original = await replay(await fleet(), "register_no_ctype")
    assert (answer.status, answer.body) == (original.status, original.body)
    assert answer.header("content-type") == original.header("content-type")


@row("3.fault.malformed.from-client")
async def test_malformed_json_is_400_in_the_originals_words(fleet):
    answer, original = await replay(await fleet(), "register_malformed")
    assert (answer.status, answer.header("content-type")) == (original.status, original.header("content-type"))
    assert answer.body.startswith(b"Failed to parse the request body as JSON: ")
    assert original.body.startswith(b"Failed to parse the request body as JSON: ")


@row("3.fault.shape.from-client")
async def test_a_missing_field_is_422_in_the_originals_words(fleet):
    answer, original = await replay(await fleet(), "register_missing_field")
    assert (answer.status, answer.header("content-type")) == (original.status, original.header("content-type"))
    beginning = b"Failed to deserialize the JSON body into the target type: "
    assert answer.body.startswith(beginning)
    assert original.body.startswith(beginning)


@row("3.fault.too_large.from-client")
async def test_a_body_over_64_kib_is_413(fleet):
    ours = await fleet()
    allowed = await ours.post("/api/v1/nodes/register", b" " * 60_000)
    assert allowed.status == 400
    answer = await ours.post("/api/v1/nodes/register", b" " * 70_000)
    assert (answer.status, answer.body) == (413, b"")


@row("3.fault.bad_uuid.from-client")
async def test_a_bad_uuid_in_the_path_is_400(fleet):
    answer, original = await replay(await fleet(), "node_bad_uuid")
    assert (answer.status, answer.header("content-type")) == (original.status, original.header("content-type"))
    assert answer.body.startswith(b"Invalid URL: UUID parsing failed")


@row("3.fault.method.from-client")
async def test_a_wrong_method_is_405_with_allow(fleet):
    answer, original = await replay(await fleet(), "wrong_method")
    assert (answer.status, answer.body) == (original.status, original.body)
    assert answer.header("allow") == original.header("allow") == "GET,HEAD"


@row("3.fault.unknown_path.from-client")
async def test_an_unknown_path_is_404_with_a_sentence(fleet):
    answer, original = await replay(await fleet(), "unknown_path")
    assert answer.status == original.status == 404
    assert answer.header("content-type").startswith("application/problem+json")
    assert answer.json()["code"] == "NOT_FOUND"
