"""Fenced writes made at the same time, on a real server: they share a batch, and nobody is any the worse for it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal

import pytest

from secbeat.bus import LeaseTiming, Timing
from secbeat.bus.group import MAX_BYTES, MAX_WRITES
from secbeat.store import Conflict, NotLeader, Unavailable
from secbeat.testing import until

SLOW = Timing(call=30)  # a machine under load is no reason to fail
QUICK = Timing(ping=0.3, pings=1, stuck=0.6, reconnect_min=0.02, reconnect_max=0.1, call=2)
LONG = LeaseTiming(ttl=120)


@pytest.fixture
def leader(open_server, bus_to):
    """A leading process's bucket, and the sizes of the batches that it sends."""

    async def make(timing: Timing = SLOW):
        bus = await bus_to(open_server, timing=timing)
        lease = await bus.lease("same-holder", timing=LONG)
        await lease._turn()
        assert lease.held
        bucket = await bus.fenced("state", lease)
        sizes: list[int] = []
        batch = bucket._store.batch

        async def counted(*writes):
            sizes.append(len(writes))
            return await batch(*writes)

        bucket._store.batch = counted
        return lease, bucket, sizes

    return make


async def together(*writes):
    return await asyncio.gather(*writes, return_exceptions=True)


async def test_writes_of_every_kind_share_one_batch_and_get_their_own_revisions(leader):
    _, bucket, sizes = await leader()
    old = await bucket.put("node.changed", b"old")
    await bucket.put("node.deleted", b"old")
    await bucket.put("node.recreated", b"old")
    await bucket.delete("node.recreated")
    results = await together(
        bucket.delete("node.deleted"),
        bucket.update("node.changed", b"new", old),
        *(bucket.create(f"node.c{n}", b"%d" % n) for n in range(20)),
        *(bucket.put(f"node.p{n}", b"%d" % n) for n in range(20)),
    )
    assert sizes == [43]
    assert [result for result in results if isinstance(result, Exception)] == []
    entries = {entry.key: entry for entry in await bucket.entries("node.")}
    assert len(entries) == 41
    assert entries["node.changed"].value == b"new"
    names = ["node.changed", *(f"node.c{n}" for n in range(20)), *(f"node.p{n}" for n in range(20))]
    assert [entries[name].revision for name in names] == results[1:]
    assert await bucket.update("node.c3", b"again", results[5]) > results[5]


async def test_of_fifty_writes_the_one_that_conflicts_fails_alone(leader):
    _, bucket, _ = await leader()
    await bucket.put("node.taken", b"before")
    writes = [bucket.create(f"node.{n}", b"x") for n in range(49)]
    writes.insert(31, bucket.create("node.taken", b"after"))
    results = await together(*writes)
    assert isinstance(results.pop(31), Conflict)
    entries = {entry.key: entry.revision for entry in await bucket.entries("node.")}
    assert (await bucket.get("node.taken")).value == b"before"
    assert [entries[f"node.{n}"] for n in range(49)] == results


async def test_a_deleted_key_is_created_again_within_a_group(leader):
    _, bucket, _ = await leader()
    await bucket.put("node.3", b"old")
    await bucket.delete("node.3")
    results = await together(*(bucket.create(f"node.{n}", b"new") for n in range(30)))
    assert [result for result in results if not isinstance(result, int)] == []
    assert (await bucket.get("node.3")).value == b"new"


async def test_when_another_leads_the_whole_group_is_refused_and_nothing_of_it_is_stored(leader):
    stale, bucket, _ = await leader()
    await bucket.put("node.old", b"old")
    revision = await bucket.put("node.changed", b"old")
    _, other, _ = await leader()
    assert stale.held, "the case is about one that has not noticed"
    for conditional in (True, False):
        make = bucket.create if conditional else bucket.put
        results = await together(
            bucket.delete("node.old"),
            bucket.update("node.changed", b"late", revision) if conditional else bucket.put("node.changed", b"late"),
            *(make(f"node.{n}", b"late") for n in range(30)),
        )
        assert {type(result) for result in results} == {NotLeader}
    assert {(entry.key, entry.value) for entry in await other.entries("node.")} == {
        ("node.old", b"old"),
        ("node.changed", b"old"),
    }


async def test_writes_of_one_key_keep_their_order_among_others(leader):
    _, bucket, _ = await leader()
    writes = []
    for n in range(10):
        writes += [bucket.put("node.same", b"%d" % n), bucket.put(f"node.{n}", b"x"), bucket.create(f"op.{n}", b"x")]
    results = await together(*writes)
    same = results[::3]
    assert same == sorted(same)
    assert len(set(results)) == 30
    entry = await bucket.get("node.same")
    assert (entry.value, entry.revision) == (b"9", same[-1])


async def test_more_than_a_batch_may_hold_goes_in_several(leader):
    _, bucket, sizes = await leader()
    count = 1100  # the server takes 1,000 messages in one
    results = await together(*(bucket.create(f"node.{n}", b"x") for n in range(count)))
    assert len({result for result in results if isinstance(result, int)}) == count
    assert max(sizes) == MAX_WRITES + 1
    assert len(await bucket.entries("node.")) == count


async def test_large_values_are_spread_and_one_too_large_fails_alone(leader):
    _, bucket, sizes = await leader()
    large = MAX_BYTES * 2 // 5
    writes = [bucket.create(f"node.{n}", b"x" * large) for n in range(5)]
    results = await together(bucket.put("node.too-large", b"x" * (MAX_BYTES + 1)), *writes)
    assert isinstance(results[0], ValueError)
    assert [result for result in results[1:] if not isinstance(result, int)] == []
    assert sizes == [3, 3, 2]


async def test_a_lone_write_waits_for_nobody_and_needs_no_group(leader):
    _, bucket, sizes = await leader()
    await bucket.put("node.a", b"1")
    await bucket.delete("node.a")
    assert sizes == []
    await bucket.create("node.b", b"1")
    assert sizes == [2]


async def test_the_cancellation_of_a_waiter_disturbs_no_other(leader):
    _, bucket, _ = await leader()
    began = asyncio.Event()
    batch = bucket._store.batch

    async def telling(*writes):
        began.set()
        return await batch(*writes)

    bucket._store.batch = telling
    tasks = [asyncio.create_task(bucket.create(f"node.{n}", b"whole")) for n in range(40)]
    await began.wait()
    late = [asyncio.create_task(bucket.create(f"late.{n}", b"whole")) for n in range(40)]
    await asyncio.sleep(0)
    for task in (tasks[7], late[7]):
        assert not task.done(), "the case is about one that waits"
        task.cancel()
    results = await together(*tasks, *late)
    assert [n for n, result in enumerate(results) if not isinstance(result, int)] == [7, 47]
    values = {entry.key: entry.value for entry in await bucket.entries()}
    assert all(values[f"{kind}.{n}"] == b"whole" for kind in ("node", "late") for n in range(40) if n != 7)
    assert values.get("node.7", b"whole") == b"whole"
    assert "late.7" not in values, "it had not been sent"


@pytest.mark.parametrize("delay", [0, 0.001, 0.004])
async def test_a_server_killed_in_the_middle_leaves_each_write_stored_or_reported(open_server, leader, delay):
    _, bucket, sizes = await leader(QUICK)
    batch = bucket._store.batch
    results: dict[str, int | Unavailable] = {}

    async def batch_and_kill(*writes):
        sending = asyncio.ensure_future(batch(*writes))
        if len(sizes) == 3:
            await asyncio.sleep(delay)
            os.kill(open_server.pid, signal.SIGKILL)
        return await sending

    async def write(number: int) -> None:
        for turn in itertools.count():
            key = f"node.{number}-{turn}"
            try:
                results[key] = await (bucket.create if number % 2 else bucket.put)(key, key.encode())
            except Unavailable as error:
                results[key] = error
                return

    bucket._store.batch = batch_and_kill
    await asyncio.gather(*(write(number) for number in range(80)))
    assert len(sizes) >= 4
    await open_server.stop()
    await open_server.start()
    await until(lambda: bucket._store.link.connected)
    stored = {entry.key: entry for entry in await bucket.entries("node.")}
    for key, result in results.items():
        if isinstance(result, int):
            assert (stored[key].value, stored[key].revision) == (key.encode(), result)
    assert stored.keys() <= results.keys()
    assert all(entry.value == key.encode() for key, entry in stored.items())
    assert await bucket.create("node.after", b"1") > 0
