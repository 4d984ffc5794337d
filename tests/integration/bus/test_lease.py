"""Leadership on a real server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal

import pytest

from secbeat.bus import LeaseTiming
from secbeat.service import Stop
from secbeat.store import NotLeader, Unavailable
from secbeat.testing import until

SHORT_LEASE = LeaseTiming(ttl=2, renew=0.3, retry=0.2)
STEADY_LEASE = LeaseTiming(ttl=4, renew=0.3, retry=0.2)  # a stalled machine does not lose it


class Candidate:
    """An orchestrator's part that concerns leadership."""

    def __init__(self, bus, lease, bucket) -> None:
        self.bus, self.lease, self.bucket = bus, lease, bucket
        self.stop = Stop()
        self.task = asyncio.create_task(lease.run(self.stop))

    async def end(self) -> None:
        self.stop.request("test")
        await self.task


@pytest.fixture
async def candidate(open_server, bus_to):
    made: list[Candidate] = []

    async def make(holder: str, timing: LeaseTiming = SHORT_LEASE) -> Candidate:
        bus = await bus_to(open_server)
        lease = await bus.lease(holder, timing=timing)
        made.append(Candidate(bus, lease, await bus.fenced("state", lease)))
        return made[-1]

    yield make
    for one in made:
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)


async def held(one: Candidate) -> None:
    async with asyncio.timeout(20):
        await one.lease.wait_held()


async def test_of_two_candidates_exactly_one_leads_and_goes_on_leading(candidate):
    one, two = await candidate("one", STEADY_LEASE), await candidate("two", STEADY_LEASE)
    await until(lambda: one.lease.held or two.lease.held)
    leader, other = (one, two) if one.lease.held else (two, one)
    for _ in range(50):  # longer than the lease lives without renewal
        assert leader.lease.held
        assert not other.lease.held
        await asyncio.sleep(0.1)
    assert leader.lease.epoch == 1
    await leader.bucket.put("node.a", b"1")
    with pytest.raises(NotLeader):
        await other.bucket.put("node.a", b"2")


async def test_an_orderly_end_hands_over_within_two_seconds(candidate):
    one = await candidate("one", LeaseTiming())
    await held(one)
    two = await candidate("two", LeaseTiming())
    await one.end()
    async with asyncio.timeout(8):  # two seconds and a slow machine; run out it would have after fifteen
        await two.lease.wait_held()
    assert two.lease.epoch == 2


async def test_a_frozen_leader_loses_and_its_write_is_refused_although_it_believes(candidate):
    one = await candidate("one")
    await held(one)
    await one.bucket.put("node.a", b"one")
    one.task.cancel()  # frozen: it renews no more
    two = await candidate("two")
    await held(two)
    one.lease._until = float("inf")  # its clock stood still: it goes on believing
    assert one.lease.held
    for write in (
        one.bucket.put("node.a", b"late"),
        one.bucket.create("node.b", b"late"),
        one.bucket.delete("node.a"),
    ):
        with pytest.raises(NotLeader):
            await write
    assert (await two.bucket.get("node.a")).value == b"one"
    assert two.lease.epoch == one.lease.epoch + 1


async def test_a_leader_without_nats_stops_believing_before_another_can_lead(open_server, candidate):
    one = await candidate("one")
    await held(one)
    loop = asyncio.get_running_loop()
    os.kill(open_server.pid, signal.SIGSTOP)
    frozen = loop.time()
    try:
        async with asyncio.timeout(10):
            await one.lease.wait_lost()
        assert loop.time() - frozen < SHORT_LEASE.ttl
        with pytest.raises(NotLeader):
            await one.bucket.put("node.a", b"1")
    finally:
        os.kill(open_server.pid, signal.SIGCONT)
    await held(one)


async def test_the_epoch_survives_the_expiry_of_the_lease_and_a_restart_of_the_server(open_server, candidate):
    one = await candidate("one")
    await held(one)
    one.task.cancel()
    await asyncio.gather(one.task, return_exceptions=True)
    await open_server.stop()
    await open_server.start()
    # A server without the fixed port may come back elsewhere; this one remembers the port of its last start.
    await until(lambda: one.bus.connected)
    two = await candidate("two")
    await held(two)
    assert two.lease.epoch == 2
    leader = json.loads((await two.bucket.get("leader")).value)
    assert (leader["holder"], leader["epoch"]) == ("two", 2)


async def test_the_next_process_of_the_same_holder_leads_at_once(candidate):
    one = await candidate("instance", LeaseTiming())
    await held(one)
    one.task.cancel()  # as kill -9 would: nothing is given up
    two = await candidate("instance", LeaseTiming())
    async with asyncio.timeout(5):  # a third of the lease's life
        await two.lease.wait_held()
    assert two.lease.epoch == 2


async def test_two_processes_of_one_name_do_not_take_the_lease_from_each_other_for_ever(candidate):
    one = await candidate("instance", STEADY_LEASE)
    await held(one)
    two = await candidate("instance", STEADY_LEASE)
    await held(two)
    await until(lambda: not one.lease.held)
    for _ in range(30):
        assert two.lease.held
        assert not one.lease.held
        await asyncio.sleep(0.1)


async def test_an_epoch_that_was_seen_elsewhere_is_exceeded(open_server, bus_to):
    bus = await bus_to(open_server)
    lease = await bus.lease("one", timing=SHORT_LEASE)
    lease.saw(2**20)
    await lease._turn()
    assert lease.epoch == 2**20 + 1


async def test_a_renewal_whose_confirmation_got_lost_keeps_the_lease(open_server, bus_to, monkeypatch):
    bus = await bus_to(open_server)
    lease = await bus.lease("one", timing=SHORT_LEASE)
    bucket = await bus.fenced("state", lease)
    await lease._turn()
    write = lease._store.write

    async def write_and_lose_the_reply(*arguments):
        await write(*arguments)
        raise Unavailable("lost")

    monkeypatch.setattr(lease._store, "write", write_and_lose_the_reply)
    await lease._turn()
    monkeypatch.setattr(lease._store, "write", write)
    await lease._turn()
    assert lease.held
    assert lease.epoch == 1
    await bucket.put("node.a", b"1")


async def test_a_takeover_whose_confirmation_got_lost_is_recognised_as_ours(open_server, bus_to, monkeypatch):
    bus = await bus_to(open_server)
    lease = await bus.lease("one", timing=SHORT_LEASE)
    bucket = await bus.fenced("state", lease)
    batch = lease._store.batch

    async def batch_and_lose_the_reply(*arguments):
        await batch(*arguments)
        raise Unavailable("lost")

    monkeypatch.setattr(lease._store, "batch", batch_and_lose_the_reply)
    await lease._turn()
    assert not lease.held
    monkeypatch.setattr(lease._store, "batch", batch)
    await lease._turn()
    assert lease.held
    assert lease.epoch == 1
    await bucket.create("node.a", b"1")


async def test_the_keys_of_the_lease_cannot_be_written_through_the_fenced_bucket(candidate):
    one = await candidate("one")
    await held(one)
    for key in ("leader", "lease", "fence"):
        with pytest.raises(ValueError, match="lease's own"):
            await one.bucket.put(key, b"x")


async def test_changes_of_leadership_are_logged_once(candidate, caplog):
    with caplog.at_level(logging.INFO, logger="lease"):
        one = await candidate("one")
        await held(one)
        await asyncio.sleep(1)
        await one.end()
    assert [record.action for record in caplog.records] == ["lease_taken", "lease_released"]
