"""What a leader loads: the store's records replace what memory holds from before."""

from __future__ import annotations

import uuid

import pytest

from orchestrator.fleet import Node, Registry
from orchestrator.reconcile import records as module
from orchestrator.reconcile.records import Records
from secbeat.testing import FakeClock, MemoryBucket, MemoryLease
from secbeat.wire.nodes import NodeRecord


@pytest.fixture
def bucket():
    return MemoryBucket().fenced(MemoryLease())


@pytest.fixture
def records(bucket):
    return Records(bucket, Registry(clock=FakeClock(), default_interval=5))


def record(number: int, state: str = "active") -> NodeRecord:
    now = FakeClock().now()
    return NodeRecord.model_validate(
        {"node_id": str(uuid.UUID(int=number)), "pool": "web", "state": state, "state_since": now, "created_at": now}
    )


async def write(bucket, *written: NodeRecord) -> None:
    for one in written:
        await bucket.put(f"node.{one.node_id}", one.encode())


async def test_every_node_of_the_store_is_loaded_in_its_order(bucket, records):
    many = [record(number) for number in range(1, 2 * module._BATCH + 2)]
    await write(bucket, *many)
    await records.load()
    assert [node.record for node in records.registry.nodes()] == many


async def test_a_node_that_left_meanwhile_is_forgotten_and_the_others_keep_what_was_heard(bucket, records):
    await write(bucket, record(1), record(2))
    await records.load()
    records.registry.touch(record(1).node_id)
    await bucket.delete(f"node.{record(2).node_id}")
    await write(bucket, record(1, "draining"))
    await records.load()
    (node,) = records.registry.nodes()
    assert (node.node_id, node.state, node.heard) == (record(1).node_id, "draining", True)


async def test_loading_again_does_not_unpack_the_fleet(bucket, records, monkeypatch):
    await write(bucket, record(1))
    await records.load()

    def unpacked(_node):
        raise AssertionError("a record of each node costs 20 microseconds")

    monkeypatch.setattr(Node, "record", property(unpacked))
    await records.load()
    assert len(records.registry) == 1


async def test_when_all_is_loaded_it_is_said(bucket, records):
    await write(bucket, record(1))
    seen = []
    records.on_loaded = lambda: seen.append(len(records.registry))
    await records.load()
    assert seen == [1]
