from __future__ import annotations

import asyncio
import json

import pytest

from provisioner.webhook.farewell import Farewells
from secbeat import ids, subjects
from secbeat.wire.jobs import JobRecord, Machine, MachineRecord


class Bench:
    def __init__(self, world):
        self.world = world
        self.open = set()
        self.farewells = Farewells(
            store=world.store, intake=world.unsigned, messaging=world.messaging, clock=world.clock, probe=self.probe
        )

    async def probe(self, machine):
        return machine.address in self.open

    async def machine(self, address, *, signed=False, reported=True):
        found = Machine(id="i", name="n", address=address) if reported else None
        record = MachineRecord(
            cluster_id=ids.new_cluster_id(), node_id=ids.new_node_id(), op_id=ids.new_op_id(), pool="default",
            blueprint="default", blueprint_digest="d", target="local", signed=signed,
            created_at=self.world.clock.now(), machine=found,
        )  # fmt: skip
        await self.world.store.put_machine(record)
        self.open.add(address)
        return record

    async def start(self):
        self.world.tasks.append(asyncio.create_task(self.farewells.run()))
        await self.world.clock.advance(12)

    async def heartbeat(self, node_id, status="Terminating"):
        payload = json.dumps({"v": 1, "node_id": node_id, "status": status}).encode()
        await self.world.messaging.linked().publish(subjects.heartbeat(node_id), payload)

    async def teardowns(self):
        return [job.node_id for job in await self.world.store.jobs() if job.action == "destroy"]


@pytest.fixture
async def bench(world):
    return Bench(world)


async def test_a_final_heartbeat_and_a_closed_port_tear_the_machine_down_once(bench):
    record = await bench.machine("127.0.9.1")
    await bench.start()
    await bench.heartbeat(record.node_id)
    bench.open.clear()
    await bench.world.clock.advance(30)
    assert await bench.teardowns() == [record.node_id]
    await bench.heartbeat(record.node_id)
    await bench.world.clock.advance(60)
    assert await bench.teardowns() == [record.node_id]
    (job,) = await bench.world.store.jobs()
    assert (job.signed, job.reason, job.action) == (False, "UNSIGNED_TEARDOWN", "destroy")


async def test_a_final_heartbeat_alone_is_not_enough(bench):
    record = await bench.machine("127.0.9.1")
    await bench.start()
    await bench.heartbeat(record.node_id)
    await bench.world.clock.advance(60)
    assert await bench.teardowns() == []
    bench.open.clear()
    await bench.world.clock.advance(30)
    assert await bench.teardowns() == [record.node_id]


async def test_a_closed_port_alone_is_not_enough(bench):
    await bench.machine("127.0.9.1")
    await bench.start()
    bench.open.clear()
    await bench.world.clock.advance(300)
    assert await bench.teardowns() == []


async def test_an_active_heartbeat_is_no_farewell(bench):
    record = await bench.machine("127.0.9.1")
    await bench.start()
    await bench.heartbeat(record.node_id, status="Active")
    bench.open.clear()
    await bench.world.clock.advance(60)
    assert await bench.teardowns() == []


async def test_a_node_that_got_another_id_from_its_orchestrator_is_found_by_its_closed_port(bench):
    staying, leaving = await bench.machine("127.0.9.1"), await bench.machine("127.0.9.2")
    await bench.start()
    await bench.heartbeat(ids.new_node_id())
    bench.open.discard("127.0.9.2")
    await bench.world.clock.advance(30)
    assert await bench.teardowns() == [leaving.node_id]
    bench.open.discard("127.0.9.1")  # a crash later, without a farewell of its own
    await bench.world.clock.advance(300)
    assert staying.node_id not in await bench.teardowns()


async def test_a_machine_that_still_boots_is_not_taken_for_the_one_that_leaves(bench):
    await bench.machine("127.0.9.1")
    bench.open.clear()
    await bench.start()
    await bench.heartbeat(ids.new_node_id())
    await bench.world.clock.advance(60)
    assert await bench.teardowns() == []


async def test_a_machine_that_leaves_seconds_after_it_was_made_is_not_missed(bench):
    await bench.start()
    record = await bench.machine("127.0.9.1")
    now = bench.world.clock.now()
    job = JobRecord(
        op_id=record.op_id, cluster_id=record.cluster_id, action="create", pool="default", node_id=record.node_id,
        signed=False, state="succeeded", created_at=now, deadline=now,
    )  # fmt: skip
    await bench.farewells.job_ended(job)
    await bench.heartbeat(ids.new_node_id())
    bench.open.clear()
    await bench.world.clock.advance(30)
    assert await bench.teardowns() == [record.node_id]


async def test_machines_of_signed_operations_are_never_touched(bench):
    record = await bench.machine("127.0.9.1", signed=True)
    other = await bench.machine("127.0.9.2")
    await bench.start()
    await bench.heartbeat(record.node_id)
    bench.open.discard("127.0.9.1")
    await bench.world.clock.advance(60)
    bench.open.discard("127.0.9.2")
    await bench.world.clock.advance(60)
    assert await bench.teardowns() == []
    assert other.node_id not in await bench.teardowns()


async def test_a_node_that_its_orchestrator_has_given_up_and_whose_port_is_closed_loses_its_machine(bench):
    dead, other = await bench.machine("127.0.9.1"), await bench.machine("127.0.9.2")
    await bench.start()
    bench.farewells.given_up("127.0.9.1")
    await bench.world.clock.advance(60)
    assert await bench.teardowns() == [], "its port is open: the orchestrator may be wrong"
    bench.open.clear()
    await bench.world.clock.advance(30)
    assert await bench.teardowns() == [dead.node_id]
    assert other.node_id not in await bench.teardowns()


async def test_a_machine_made_after_its_address_was_given_up_is_another_one(bench):
    await bench.start()
    bench.farewells.given_up("127.0.9.1")
    await bench.world.clock.advance(1)
    await bench.machine("127.0.9.1")
    bench.open.clear()
    await bench.world.clock.advance(120)
    assert await bench.teardowns() == []


async def test_what_was_given_up_long_ago_is_forgotten(bench):
    await bench.machine("127.0.9.1")
    await bench.start()
    bench.farewells.given_up("127.0.9.1")
    await bench.world.clock.advance(700)
    bench.open.clear()
    await bench.world.clock.advance(60)
    assert await bench.teardowns() == []


async def test_a_signed_operations_machine_is_not_touched_when_its_address_is_given_up(bench):
    await bench.machine("127.0.9.1", signed=True)
    await bench.start()
    bench.farewells.given_up("127.0.9.1")
    bench.open.clear()
    await bench.world.clock.advance(60)
    assert await bench.teardowns() == []


async def test_what_a_failed_unsigned_create_left_is_removed(bench):
    record = await bench.machine("127.0.9.1", reported=False)
    await bench.start()
    await bench.world.clock.advance(30)
    assert await bench.teardowns() == [record.node_id]


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"status": 5}', b"\xff"])
async def test_a_malformed_heartbeat_changes_nothing(bench, payload):
    record = await bench.machine("127.0.9.1")
    await bench.start()
    await bench.world.messaging.linked().publish(subjects.heartbeat(record.node_id), payload)
    bench.open.clear()
    await bench.world.clock.advance(60)
    assert await bench.teardowns() == []
