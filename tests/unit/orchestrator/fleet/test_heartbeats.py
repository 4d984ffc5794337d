from __future__ import annotations

import json
import uuid

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secbeat.subjects import heartbeat
from secbeat.wire.heartbeat import Heartbeat

ONE, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
REBOOTED, THIRD = str(uuid.UUID(int=77)), str(uuid.UUID(int=78))


def test_a_heartbeat_sets_load_and_time_of_receipt(fleet):
    fleet.add()
    node = fleet.beat()
    assert (node.cpu, node.memory, node.connections, node.in_flight) == (0.42, 0.31, 12, 3)
    assert (node.rps, node.errors_per_second, node.seq, node.blocklist_version) == (80.5, 0.5, 1, 7)
    assert node.reported_status == "Active"
    assert node.received == node.metrics_received == fleet.clock.monotonic()
    assert fleet.registry.counters == {
        "received": 1, "malformed": 0, "stale": 0, "unknown": 0, "bad_field": 0, "newer_version": 0,
    }  # fmt: skip


def test_the_test_frames_are_heartbeats_of_the_wire_model(fleet):
    assert Heartbeat.model_validate(fleet.body()).metrics.cpu == 0.42


async def test_a_repeated_or_older_frame_changes_nothing(fleet):
    fleet.add()
    fleet.beat(seq=5)
    before = fleet.load()
    await fleet.clock.advance(1)
    fleet.beat(seq=5, metrics={"cpu": 0.99})
    fleet.beat(seq=4, metrics={"cpu": 0.99})
    assert fleet.load() == before
    assert fleet.registry.counters["stale"] == 2


def test_a_new_boot_starts_a_new_sequence_and_says_so_once(fleet):
    fleet.add()
    fleet.beat(seq=900)
    node = fleet.beat(boot_id=REBOOTED, seq=1, metrics={"cpu": 0.9})
    fleet.beat(boot_id=REBOOTED, seq=2)
    assert (node.boot_id, node.seq) == (REBOOTED, 2)
    assert fleet.signals == [(ONE, "rebooted")]


def test_late_frames_of_the_boot_before_are_stale(fleet):
    fleet.add()
    fleet.beat(seq=900)
    fleet.beat(boot_id=REBOOTED, seq=1)
    before = fleet.load()
    fleet.beat(seq=901, metrics={"cpu": 0.9})
    assert fleet.load() == before
    assert fleet.registry.counters["stale"] == 1


def test_a_rejoin_that_brings_a_new_boot_makes_frames_of_the_old_one_stale(fleet):
    fleet.add()
    fleet.beat(seq=900)
    fleet.add(boot_id=REBOOTED)
    fleet.beat(seq=901, metrics={"cpu": 0.9})
    node = fleet.beat(boot_id=REBOOTED, seq=1, metrics={"cpu": 0.1})
    assert (node.cpu, node.seq, fleet.registry.counters["stale"]) == (0.1, 1, 1)
    assert fleet.signals == []


def test_writing_a_record_that_does_not_know_the_new_boot_yet_does_not_undo_it(fleet):
    record = fleet.add().record
    fleet.beat(seq=900)
    fleet.beat(boot_id=REBOOTED, seq=1)
    fleet.registry.put(record.model_copy(update={"protected": True}))
    node = fleet.beat(boot_id=REBOOTED, seq=2, metrics={"cpu": 0.9})
    assert (node.cpu, node.protected) == (0.9, True)


def test_a_node_cannot_beat_for_another(fleet):
    fleet.add(1)
    fleet.add(2)
    before = fleet.load(2)
    fleet.beat(2, subject=heartbeat(ONE), metrics={"cpu": 0.99})
    assert fleet.load(2) == before
    assert fleet.registry.counters["malformed"] == 1


def test_a_field_by_field_frame_cannot_name_another_node_either(fleet):
    fleet.add(1)
    fleet.add(2)
    one, two = fleet.load(1), fleet.load(2)
    fleet.beat(2, subject=heartbeat(ONE), metrics={"cpu": 2})
    assert (fleet.load(1), fleet.load(2)) == (one, two)


def test_an_unknown_node_is_counted_and_not_invented(fleet):
    fleet.beat(9)
    assert len(fleet.registry) == 0
    assert fleet.registry.counters["unknown"] == 1


@pytest.mark.parametrize(
    "literal", ["NaN", "Infinity", "-Infinity", "1e999", "-0.1", "1.01", '"0.5"', "null", "true", "[]"]
)
@pytest.mark.parametrize("name", ["cpu", "memory"])
async def test_one_bad_number_is_dropped_and_the_rest_and_the_life_are_kept(fleet, name, literal):
    fleet.add()
    fleet.beat()
    await fleet.clock.advance(2)
    body = json.dumps(fleet.body(metrics={name: 123456, "connections": 99}))
    node = fleet.raw(body.replace("123456", literal).encode())
    assert (node.cpu, node.memory, node.connections) == (0.42, 0.31, 99)
    assert node.received == fleet.clock.monotonic()
    assert fleet.registry.counters["bad_field"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("connections", -1), ("connections", 1.5), ("in_flight", "3"), ("rps", 1e13), ("errors_per_second", -1)],
)
def test_other_metrics_out_of_range_are_dropped_alone(fleet, name, value):
    fleet.add()
    before = getattr(fleet.beat(), name)
    node = fleet.beat(metrics={name: value, "cpu": 0.5})
    assert (getattr(node, name), node.cpu) == (before, 0.5)


async def test_a_frame_without_a_sound_cpu_does_not_make_the_load_fresh(fleet):
    fleet.add()
    fleet.beat()
    await fleet.clock.advance(5)
    fresh_until = fleet.beat(metrics={"cpu": 7}).metrics_until
    await fleet.clock.advance(11)
    node = fleet.beat(metrics={"cpu": 7})
    assert fresh_until < fleet.clock.monotonic() < node.deadline


def test_a_frame_with_a_bad_seq_is_a_proof_of_life_and_nothing_else(fleet):
    fleet.add()
    node = fleet.beat(seq=-1, metrics={"cpu": 0.9})
    assert (node.cpu, node.seq, node.heard) == (None, -1, True)


def test_an_unknown_status_is_dropped_and_the_load_applied(fleet):
    fleet.add()
    fleet.beat()
    node = fleet.beat(status="Zombie", metrics={"cpu": 0.9})
    assert (node.reported_status, node.cpu) == ("Active", 0.9)


def test_a_newer_version_is_a_proof_of_life_and_not_interpreted(fleet):
    fleet.add()
    node = fleet.beat(v=2)
    assert (node.heard, node.cpu, fleet.registry.counters["newer_version"]) == (True, None, 1)


def test_keys_that_nobody_knows_are_ignored(fleet):
    fleet.add()
    assert fleet.beat(later="x", metrics={"later": [1]}).cpu == 0.42


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"null", b"[]", b"\xff\xfe", b'"x"', b"[" * 100_000, b"9" * 5000, b'{"node_id":' + b"[" * 50_000,
     b"{}", b'{"node_id":"' + b"x" * 36 + b'"}', b"x" * 2_000_000],
    ids=lambda payload: repr(payload[:12]),
)  # fmt: skip
def test_garbage_changes_nothing(fleet, payload):
    fleet.add()
    fleet.beat()
    before = fleet.load()
    fleet.raw(payload)
    assert fleet.load() == before
    assert fleet.registry.counters["malformed"] == 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(["v", "node_id", "boot_id", "seq", "sent_at", "status", "pool", "metrics", "agent_version"])
_METRICS = st.sampled_from(["cpu", "memory", "connections", "in_flight", "rps", "errors_per_second", "latency_ms"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(top=st.dictionaries(_NAMES, _JSON), metrics=st.dictionaries(_METRICS, _JSON), cut=st.integers(0, 400))
def test_no_frame_raises_or_leaves_a_number_out_of_range(top, metrics, cut):
    from orchestrator.fleet import Registry
    from secbeat.testing import FakeClock
    from secbeat.wire.nodes import NodeRecord

    clock = FakeClock()
    registry = Registry(clock=clock, default_interval=5)
    now = clock.now()
    node = registry.put(
        NodeRecord(node_id=ONE, pool="web", state="active", state_since=now, created_at=now, boot_id=OTHER)
    )
    body = {"node_id": ONE, "boot_id": OTHER, "seq": 1, "sent_at": "", "status": "Active", "pool": "web"}
    body["metrics"] = {"cpu": 0.5, "memory": 0.5, "connections": 1, **metrics}
    payload = json.dumps({**body, **top}).encode()
    for data in (payload, payload[:cut]):
        registry.on_frame(heartbeat(ONE), data)
    assert node.state == "active"
    assert node.pool == "web"
    for value in (node.cpu, node.memory):
        assert value is None or 0 <= value <= 1
    assert node.connections >= 0 <= node.in_flight
    assert 0 <= node.rps <= 1e12
    assert 0 <= node.errors_per_second <= 1e12
    assert node.metrics_until < clock.monotonic() or node.cpu is not None
    msgspec.json.decode(b"".join(registry.listing()))


# ---------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("state", "status", "signal"),
    [
        ("joining", "Active", "joined_heartbeat"),
        ("joining", "Starting", "joined_heartbeat"),
        ("booting", "Active", "joined_heartbeat"),
        ("unreachable", "Active", "recovered"),
        ("failed", "Active", "recovered"),
        ("active", "Draining", "draining"),
        ("active", "Terminating", "terminating"),
        ("draining", "Terminating", "terminating"),
        ("unreachable", "Terminating", "terminating"),
        ("active", "Active", None),
        ("active", "Dead", None),
        ("draining", "Draining", None),
        ("draining", "Active", None),
        ("terminating", "Terminating", None),
        ("warm", "Active", None),
        ("quarantined", "Active", None),
    ],
)
def test_what_a_node_says_reaches_the_core_as_a_signal_and_never_changes_the_state(fleet, state, status, signal):
    fleet.add(state=state)
    node = fleet.beat(status=status)
    assert fleet.signals == ([(ONE, signal)] if signal else [])
    assert (node.state, node.reported_status) == (state, status)


def test_a_signal_repeats_until_the_state_fits(fleet):
    fleet.add(state="joining")
    fleet.beat()
    fleet.beat()
    fleet.add(state="active")
    fleet.beat()
    assert fleet.signals == [(ONE, "joined_heartbeat")] * 2


def test_without_a_listener_signals_are_dropped(fleet):
    fleet.registry.on_signal = None
    fleet.add(state="joining")
    assert fleet.beat().cpu == 0.42
