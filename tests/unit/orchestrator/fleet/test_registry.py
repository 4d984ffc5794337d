from __future__ import annotations

import sys
import uuid
from datetime import timedelta

from secbeat.wire.jobs import Machine
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.registration import Listening, NodeConfig


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


FULL = {
    "op_id": "01K2XG3Q4R5S6T7V8W9X0Y1Z2A",
    "public_ip": "2001:db8::7",
    "peer_address": "10.0.0.7",
    "config": NodeConfig(node_type="mitigation-node", region="ö", tags=["a", 'b"']),
    "listening": Listening(proxy_port=1, management_port=0, metrics_port=3),
    "machine": Machine(id="vm-7", name="web-7", address="10.0.0.7", management_port=0, blueprint_digest="sha256:x"),
    "nats_public_key": "U" + "A" * 55,
    "protected": True,
    "legacy": True,
    "destroy_op_id": "01K2XG3Q4R5S6T7V8W9X0Y1Z2B",
    "agent_version": "1.2.3",
}


def test_a_record_comes_back_as_it_was_put_in_every_field(fleet):
    record = fleet.record(**FULL)
    named = {"v", "node_id", "pool", "state", "state_since", "created_at", "boot_id", "registered_at"} | FULL.keys()
    rest = {
        name: True
        for name in NodeRecord.model_fields.keys() - named
        if NodeRecord.model_fields[name].annotation is bool
    }
    record = record.model_copy(update=rest)
    assert fleet.registry.put(record).record.plain() == record.plain()


def test_a_record_of_defaults_comes_back_too(fleet):
    record = NodeRecord(
        node_id=uid(1), pool="web", state="requested", state_since=fleet.clock.now(), created_at=fleet.clock.now()
    )
    assert fleet.registry.put(record).record.plain() == record.plain()


def test_a_new_record_keeps_what_heartbeats_said(fleet):
    fleet.add()
    before = fleet.beat()
    after = fleet.add(state="draining")
    assert after is before
    assert (after.state, after.cpu, after.seq) == ("draining", 0.42, 1)


def test_pools_are_kept_apart_and_a_move_leaves_no_trace(fleet):
    fleet.add(1, pool="web")
    fleet.add(2, pool="api")
    registry = fleet.registry
    assert [node.node_id for node in registry.nodes("web")] == [uid(1)]
    fleet.add(1, pool="api")
    assert [node.node_id for node in registry.nodes("api")] == [uid(2), uid(1)]
    assert list(registry.nodes("web")) == list(registry.nodes("nowhere")) == []
    assert len(registry) == len(list(registry.nodes())) == 2


def test_a_dropped_node_is_forgotten_and_its_heartbeats_are_unknown(fleet):
    fleet.add()
    fleet.registry.drop(uid(1))
    fleet.registry.drop(uid(1))
    fleet.beat()
    assert fleet.registry.get(uid(1)) is None
    assert uid(1) not in fleet.registry
    assert list(fleet.registry.nodes("web")) == []
    assert fleet.registry.counters["unknown"] == 1


def test_the_warm_up_counts_from_the_join_even_after_a_restart(fleet):
    joined = fleet.clock.now() - timedelta(seconds=100)
    node = fleet.add(registered_at=joined)
    assert fleet.clock.monotonic() - node.joined == 100


def test_nodes_alike_share_what_they_have_in_common(fleet):
    one, two = (fleet.add(number, **FULL) for number in (1, 2))
    assert one.shared is two.shared
    assert one.pool is two.pool


def test_a_node_stays_small(fleet):
    def size(number: int) -> int:
        fleet.add(number, **{key: value for key, value in FULL.items() if key not in {"legacy", "protected"}})
        node = fleet.beat(number)
        parts = {id(part): part for part in (getattr(node, slot) for slot in node.__slots__)}
        shared = {id(node.shared), id(node.pool), id(node.state), id(None), id(True), id(False)}
        return sys.getsizeof(node) + sum(sys.getsizeof(part) for key, part in parts.items() if key not in shared)

    size(1)
    assert size(2) < 1500
    assert not hasattr(fleet.registry.get(uid(2)), "__dict__")
