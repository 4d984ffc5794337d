"""What the fakes add to the contract (``tests/integration/bus/test_contract.py``): faults, records, virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from secbeat import ids
from secbeat.service import Stop
from secbeat.store import NotLeader, Unavailable
from secbeat.testing import (
    Call,
    FakeClock,
    Leadership,
    MemoryBucket,
    MemoryLease,
    MemoryLedger,
    MemoryMessaging,
    MemoryQueue,
    until,
)
from secbeat.testing.messaging import matches


class TestFakeClock:
    async def test_sleepers_wake_in_order_each_at_its_own_moment(self):
        clock, woken = FakeClock(), []

        async def sleeper(name, seconds):
            await clock.sleep(seconds)
            woken.append((name, clock.monotonic()))

        tasks = [asyncio.ensure_future(sleeper(*one)) for one in (("c", 3), ("a", 1), ("b", 2), ("a2", 1))]
        await clock.advance(2.5)
        assert woken == [("a", 1), ("a2", 1), ("b", 2)]
        assert clock.monotonic() == 2.5
        await clock.advance(0.5)
        assert woken[-1] == ("c", 3)
        await asyncio.gather(*tasks)

    async def test_a_loop_that_sleeps_takes_all_its_turns(self):
        clock, turns = FakeClock(), []

        async def loop():
            while True:
                await clock.sleep(10)
                turns.append(clock.monotonic())

        task = asyncio.ensure_future(loop())
        await clock.advance(35)
        assert turns == [10, 20, 30]
        task.cancel()
        await clock.advance(100)
        assert turns == [10, 20, 30]
        assert clock.sleepers == 0

    async def test_the_wall_clock_follows_and_can_jump_without_it(self):
        clock = FakeClock()
        start = clock.now()
        await clock.advance(60)
        assert clock.now() == start + timedelta(seconds=60)
        clock.jump(-3600)
        assert clock.now() == start + timedelta(seconds=60 - 3600)
        assert clock.monotonic() == 60

    async def test_long_chains_of_tasks_run_to_their_end_within_an_advance(self):
        clock, done = FakeClock(), []

        async def chain(depth):
            if depth:
                await asyncio.ensure_future(chain(depth - 1))
            else:
                await clock.sleep(1)

        async def whole():
            await chain(200)
            done.append(True)

        task = asyncio.ensure_future(whole())
        await clock.advance(1)
        assert done == [True]
        await task

    async def test_time_does_not_go_back(self):
        with pytest.raises(ValueError, match="back"):
            await FakeClock().advance(-1)

    async def test_sleeping_for_nothing_yields(self):
        await FakeClock().sleep(0)


class TestFaults:
    async def test_a_planted_error_is_raised_once_and_nothing_happens(self):
        bucket = MemoryBucket()
        bucket.next_error = Unavailable("planted")
        with pytest.raises(Unavailable, match="planted"):
            await bucket.put("a", b"1")
        assert bucket.data == {}
        await bucket.put("a", b"1")
        assert bucket.data == {"a": b"1"}

    @pytest.mark.parametrize("method", ["create", "put"])
    async def test_a_lost_reply_is_raised_after_the_write_has_happened(self, method):
        bucket = MemoryBucket()
        bucket.lost_reply = Unavailable("planted")
        with pytest.raises(Unavailable):
            await getattr(bucket, method)("a", b"1")
        assert bucket.data == {"a": b"1"}
        bucket.lost_reply = Unavailable("planted")
        with pytest.raises(Unavailable):
            await bucket.delete("a")
        assert bucket.data == {}

    async def test_calls_are_recorded_in_order_refused_ones_included(self):
        bucket = MemoryBucket(lease=MemoryLease(held=False))
        await bucket.get("a")
        with pytest.raises(NotLeader):
            await bucket.put("a", b"1")
        assert bucket.calls == [Call("get", "a"), Call("put", "a", b"1")]

    async def test_queue_ledger_and_messaging_raise_planted_errors_once(self):
        queue, ledger, messaging = MemoryQueue(), MemoryLedger(), MemoryMessaging()
        for fake, call in (
            (queue, lambda: queue.put("x")),
            (queue, lambda: queue.take(0)),
            (ledger, lambda: ledger.append("decision", "a", b"1")),
            (messaging, lambda: messaging.publish("a", b"1")),
            (messaging, lambda: messaging.request("a", b"1", 1)),
        ):
            fake.next_error = Unavailable("planted")
            with pytest.raises(Unavailable, match="planted"):
                await call()
            assert fake.next_error is None

    async def test_a_client_that_is_cut_off_sends_and_hears_nothing(self):
        here = MemoryMessaging()
        there = here.linked()
        heard = []
        await here.subscribe("a.*", lambda *message: heard.append(message))
        here.connected = False
        await there.publish("a.b", b"1")
        await here.publish("a.b", b"2")
        assert heard == []
        assert here.published == []
        with pytest.raises(Unavailable):
            await there.request("a.b", b"", 1)
        here.connected = True
        await there.publish("a.b", b"3")
        assert heard == [("a.b", b"3")]


class TestLease:
    async def test_a_takeover_is_noticed_unless_it_is_said_not_to_be(self):
        leadership = Leadership()
        one, two = MemoryLease("one", leadership=leadership), MemoryLease("two", held=False, leadership=leadership)
        assert (one.held, one.epoch) == (True, 1)
        two.acquire(unnoticed=True)
        assert one.held
        assert not one.confirmed
        assert (two.confirmed, two.epoch) == (True, 2)
        one.acquire()
        assert not two.held
        assert one.epoch == 3

    async def test_the_first_epoch_can_be_chosen(self):
        assert MemoryLease(epoch=7).epoch == 7

    async def test_waiting_for_and_losing_the_lease(self):
        lease = MemoryLease(held=False)
        waiting = asyncio.ensure_future(lease.wait_held())
        await asyncio.sleep(0)
        assert not waiting.done()
        lease.acquire()
        await waiting
        losing = asyncio.ensure_future(lease.wait_lost())
        await asyncio.sleep(0)
        assert not losing.done()
        lease.lose()
        await losing

    async def test_running_takes_it_and_gives_it_up(self):
        lease, stop = MemoryLease(held=False), Stop()
        task = asyncio.ensure_future(lease.run(stop))
        await lease.wait_held()
        stop.request("test")
        await task
        assert not lease.held


class TestQueueInVirtualTime:
    async def test_work_that_nobody_confirms_comes_again_after_the_ack_wait(self):
        clock = FakeClock()
        queue = MemoryQueue(clock=clock)
        await queue.put(ids.new_op_id())
        first = await queue.take(1)
        taking = asyncio.ensure_future(queue.take(100))
        await clock.advance(29)
        assert not taking.done()
        await first.extend()
        await clock.advance(29)
        assert not taking.done()
        await clock.advance(1)
        assert (await taking).deliveries == 2

    async def test_a_delivery_that_was_overtaken_changes_nothing(self):
        clock = FakeClock()
        queue = MemoryQueue(clock=clock)
        await queue.put("x")
        stale = await queue.take(1)
        queue.redeliver()
        fresh = await queue.take(1)
        await stale.again(0)
        taking = asyncio.ensure_future(queue.take(1))
        await clock.advance(1)
        assert await taking is None
        await fresh.done()
        assert queue.waiting == []

    async def test_after_ten_minutes_an_op_id_may_be_enqueued_again(self):
        clock = FakeClock()
        queue = MemoryQueue(clock=clock)
        await queue.put("x")
        await (await queue.take(1)).done()
        await clock.advance(599)
        await queue.put("x")
        assert queue.waiting == []
        await clock.advance(1)
        await queue.put("x")
        assert queue.waiting == ["x"]


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a.*.c", "a.b.c", True),
        ("a.b.c", "a.b", False),
    ],
)
def test_patterns_cover_what_nats_covers(pattern, subject, covered):
    assert matches(pattern, subject) is covered


async def test_polling_has_a_deadline():
    with pytest.raises(TimeoutError):
        await until(lambda: False, 0.05)
    await until(lambda: True, 0.05)
