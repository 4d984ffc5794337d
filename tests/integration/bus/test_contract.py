"""What every implementation of ``secbeat.store`` does: the fakes and the real adapter alike."""

from __future__ import annotations

import asyncio

import pytest

from secbeat import ids
from secbeat.store import Conflict, NotLeader, Unavailable


async def newest(ledger, *where, **options):
    return [record async for record in ledger.read(*where, **options)]


class TestBucket:
    async def test_a_key_that_was_never_written_is_none(self, backend):
        assert await (await backend.bucket()).get("node.a") is None

    async def test_a_created_key_is_read_back_with_its_revision(self, backend):
        bucket = await backend.bucket()
        revision = await bucket.create("node.a", b"one")
        entry = await bucket.get("node.a")
        assert (entry.key, entry.value, entry.revision) == ("node.a", b"one", revision)

    async def test_creating_an_existing_key_conflicts_and_changes_nothing(self, backend):
        bucket = await backend.bucket()
        await bucket.create("node.a", b"one")
        with pytest.raises(Conflict):
            await bucket.create("node.a", b"two")
        assert (await bucket.get("node.a")).value == b"one"

    async def test_an_update_needs_the_latest_revision(self, backend):
        bucket = await backend.bucket()
        first = await bucket.create("node.a", b"one")
        second = await bucket.update("node.a", b"two", first)
        assert second > first
        with pytest.raises(Conflict):
            await bucket.update("node.a", b"three", first)
        assert (await bucket.get("node.a")).value == b"two"

    async def test_updating_an_absent_or_deleted_key_conflicts(self, backend):
        bucket = await backend.bucket()
        with pytest.raises(Conflict):
            await bucket.update("node.a", b"two", 7)
        revision = await bucket.create("node.a", b"one")
        await bucket.delete("node.a")
        with pytest.raises(Conflict):
            await bucket.update("node.a", b"two", revision)

    async def test_put_overwrites_whatever_is_there(self, backend):
        bucket = await backend.bucket()
        await bucket.put("node.a", b"one")
        await bucket.put("node.a", b"two")
        assert (await bucket.get("node.a")).value == b"two"

    async def test_a_deleted_key_is_gone_from_get_and_from_the_listing(self, backend):
        bucket = await backend.bucket()
        await bucket.put("node.a", b"one")
        await bucket.put("node.b", b"two")
        await bucket.delete("node.a")
        assert await bucket.get("node.a") is None
        assert [entry.key for entry in await bucket.entries("node.")] == ["node.b"]

    async def test_deleting_what_is_absent_is_no_error(self, backend):
        bucket = await backend.bucket()
        await bucket.delete("node.a")
        await bucket.delete("node.a")

    async def test_a_deleted_key_can_be_created_again(self, backend):
        bucket = await backend.bucket()
        await bucket.create("node.a", b"one")
        await bucket.delete("node.a")
        await bucket.create("node.a", b"two")
        assert (await bucket.get("node.a")).value == b"two"
        with pytest.raises(Conflict):
            await bucket.create("node.a", b"three")

    async def test_entries_are_the_latest_values_under_the_prefix_only(self, backend):
        bucket = await backend.bucket()
        await bucket.put("node.a", b"old")
        await bucket.put("node.a", b"new")
        await bucket.put("node.b", b"b")
        await bucket.put("nodes", b"c")
        await bucket.put("pool.default", b"p")
        found = {entry.key: entry.value for entry in await bucket.entries("node.")}
        assert found == {"node.a": b"new", "node.b": b"b"}
        assert {entry.key for entry in await bucket.entries()} == {"node.a", "node.b", "nodes", "pool.default"}
        assert {entry.key for entry in await bucket.entries("node")} == {"node.a", "node.b", "nodes"}
        assert await bucket.entries("op.") == []

    async def test_an_empty_value_is_refused_because_it_would_mean_deleted(self, backend):
        bucket = await backend.bucket()
        with pytest.raises(ValueError, match="empty"):
            await bucket.put("node.a", b"")

    async def test_of_twenty_creators_at_once_one_wins(self, backend):
        bucket = await backend.bucket()
        results = await asyncio.gather(
            *(bucket.create("op.x", str(n).encode()) for n in range(20)), return_exceptions=True
        )
        assert sum(isinstance(result, int) for result in results) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 19


class TestFencedBucket:
    async def test_the_leader_writes_in_every_way(self, backend):
        _, bucket = await backend.leader()
        revision = await bucket.create("node.a", b"one")
        revision = await bucket.update("node.a", b"two", revision)
        assert (await bucket.get("node.a")).revision == revision
        await bucket.put("node.a", b"three")
        await bucket.delete("node.a")
        await bucket.create("node.a", b"four")
        assert (await bucket.get("node.a")).value == b"four"

    async def test_writes_at_once_all_land_with_their_own_revisions_in_the_order_of_each_key(self, backend):
        _, bucket = await backend.leader()
        keys = [f"node.{number % 20}" for number in range(60)]
        writes = (bucket.put(key, b"%d" % number) for number, key in enumerate(keys))
        revisions = await asyncio.gather(*writes)
        assert len(set(revisions)) == 60
        found = {entry.key: entry for entry in await bucket.entries("node.")}
        for number in range(40, 60):
            entry = found[keys[number]]
            assert (entry.value, entry.revision) == (b"%d" % number, revisions[number])
            assert revisions[number - 40] < revisions[number - 20] < revisions[number]

    async def test_of_writes_at_once_the_one_that_conflicts_fails_alone(self, backend):
        _, bucket = await backend.leader()
        revision = await bucket.put("node.7", b"old")
        await bucket.put("node.7", b"newer")
        writes = [
            bucket.update("node.7", b"late", revision) if number == 7 else bucket.create(f"node.{number}", b"new")
            for number in range(50)
        ]
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert [number for number, result in enumerate(results) if not isinstance(result, int)] == [7]
        assert isinstance(results[7], Conflict)
        values = {entry.key: entry.value for entry in await bucket.entries("node.")}
        assert values == {f"node.{number}": b"newer" if number == 7 else b"new" for number in range(50)}

    async def test_a_leaders_conflict_is_a_conflict_and_not_the_loss_of_the_lease(self, backend):
        _, bucket = await backend.leader()
        revision = await bucket.create("node.a", b"one")
        with pytest.raises(Conflict):
            await bucket.create("node.a", b"two")
        await bucket.put("node.a", b"two")
        with pytest.raises(Conflict):
            await bucket.update("node.a", b"three", revision)

    async def test_who_still_believes_in_a_lost_lease_is_refused_every_write(self, backend):
        stale, bucket = await backend.leader()
        revision = await bucket.create("node.a", b"one")
        await backend.leader()
        assert stale.held, "the case is about one that has not noticed"
        for write in (
            lambda: bucket.create("node.b", b"two"),
            lambda: bucket.update("node.a", b"two", revision),
            lambda: bucket.put("node.a", b"two"),
            lambda: bucket.delete("node.a"),
        ):
            with pytest.raises(NotLeader):
                await write()
        plain = await backend.bucket()
        assert (await plain.get("node.a")).value == b"one"
        assert await plain.get("node.b") is None

    async def test_the_next_leader_has_a_higher_epoch_and_writes(self, backend):
        first, _ = await backend.leader()
        second, bucket = await backend.leader()
        assert second.epoch > first.epoch
        await bucket.put("node.a", b"two")

    async def test_after_giving_the_lease_up_nothing_is_written(self, backend):
        lease, bucket = await backend.leader()
        await lease.release()
        assert not lease.held
        with pytest.raises(NotLeader):
            await bucket.put("node.a", b"one")

    async def test_a_refusal_for_want_of_the_lease_is_also_unavailable(self, backend):
        lease, bucket = await backend.leader()
        await lease.release()
        with pytest.raises(Unavailable):
            await bucket.create("node.a", b"one")


class TestQueue:
    async def test_what_was_put_is_taken_once(self, backend):
        queue = await backend.queue()
        op_id = ids.new_op_id()
        await queue.put(op_id)
        work = await queue.take(2)
        assert work.op_id == op_id
        assert await queue.take(0.05) is None
        await work.done()

    async def test_the_same_op_id_is_enqueued_once_even_after_it_was_done(self, backend):
        queue = await backend.queue()
        op_id = ids.new_op_id()
        await queue.put(op_id)
        await queue.put(op_id)
        await (await queue.take(2)).done()
        await queue.put(op_id)
        assert await queue.take(0.1) is None

    async def test_work_given_back_comes_again_after_its_delay(self, backend):
        queue = await backend.queue()
        await queue.put(ids.new_op_id())
        first = await queue.take(2)
        await first.again(0.3)
        assert await queue.take(0.05) is None
        second = await queue.take(5)
        assert second.op_id == first.op_id
        assert (first.deliveries, second.deliveries) == (1, 2)

    async def test_work_given_back_without_delay_comes_at_once(self, backend):
        queue = await backend.queue()
        await queue.put(ids.new_op_id())
        await (await queue.take(2)).again(0)
        assert await queue.take(2) is not None

    async def test_work_is_delivered_as_often_as_it_is_given_back(self, backend):
        queue = await backend.queue()
        await queue.put(ids.new_op_id())
        for attempt in range(1, 13):
            work = await queue.take(2)
            assert work.deliveries == attempt
            await work.again(0)

    async def test_extending_keeps_the_work(self, backend):
        queue = await backend.queue()
        await queue.put(ids.new_op_id())
        work = await queue.take(2)
        await work.extend()
        assert await queue.take(0.05) is None
        await work.done()

    async def test_a_waiting_taker_gets_what_comes_meanwhile(self, backend):
        queue = await backend.queue()
        waiting = asyncio.ensure_future(queue.take(10))
        await asyncio.sleep(0)
        op_id = ids.new_op_id()
        await queue.put(op_id)
        assert (await waiting).op_id == op_id

    async def test_two_takers_share_the_work(self, backend):
        queue = await backend.queue()
        put = {ids.new_op_id(), ids.new_op_id()}
        for op_id in put:
            await queue.put(op_id)
        taken = await asyncio.gather(queue.take(2), queue.take(2))
        assert {work.op_id for work in taken} == put


class TestLedger:
    async def test_the_newest_come_with_the_oldest_of_them_first(self, backend):
        ledger = await backend.ledger()
        for number in range(7):
            await ledger.append("decision", "default", str(number).encode())
        assert await newest(ledger, "decision", "default", newest=3) == [b"4", b"5", b"6"]

    async def test_fewer_than_asked_for_are_all(self, backend):
        ledger = await backend.ledger()
        await ledger.append("decision", "default", b"1")
        assert await newest(ledger, "decision", "default", newest=100) == [b"1"]

    async def test_kinds_and_pools_are_kept_apart(self, backend):
        ledger = await backend.ledger()
        await ledger.append("decision", "a", b"da")
        await ledger.append("decision", "b", b"db")
        await ledger.append("operation", "a", b"oa")
        await ledger.append("audit", "_", b"x")
        assert await newest(ledger, "decision", "a") == [b"da"]
        assert await newest(ledger, "decision") == [b"da", b"db"]
        assert await newest(ledger, "audit", "_") == [b"x"]
        assert await newest(ledger, "audit") == [b"x"]
        assert await newest(ledger, "decision", "c") == []

    async def test_rare_records_are_found_behind_many_others(self, backend):
        ledger = await backend.ledger()
        await ledger.append("decision", "rare", b"1")
        await ledger.append("decision", "rare", b"2")
        for number in range(300):
            await ledger.append("decision", "busy", str(number).encode())
        assert await newest(ledger, "decision", "rare", newest=2) == [b"1", b"2"]
        assert await newest(ledger, "decision", "rare", newest=1) == [b"2"]

    async def test_none_are_asked_for_none_come(self, backend):
        ledger = await backend.ledger()
        await ledger.append("decision", "a", b"1")
        assert await newest(ledger, "decision", newest=0) == []


class TestMessaging:
    @pytest.mark.parametrize("hot", [False, True])
    async def test_a_publish_reaches_the_subscribers_of_other_clients(self, backend, hot):
        here, there = await backend.messaging(), await backend.messaging()
        heard = asyncio.Queue()
        await here.subscribe("secbeat.hb.*", lambda *message: heard.put_nowait(message), hot=hot)
        await self.ready(here)
        await there.publish("secbeat.hb.a.b", b"not this one")
        await there.publish("secbeat.ev.a", b"nor this one")
        await there.publish("secbeat.hb.a", b"this\r\none")
        async with asyncio.timeout(5):
            assert await heard.get() == ("secbeat.hb.a", b"this\r\none")
        assert heard.empty()

    async def test_the_tail_wildcard_takes_any_number_of_tokens_but_not_none(self, backend):
        here = await backend.messaging()
        heard = asyncio.Queue()
        await here.subscribe("secbeat.ev.>", lambda *message: heard.put_nowait(message))
        await self.ready(here)
        for subject in ("secbeat.ev", "secbeat.ev.a", "secbeat.ev.a.b.c"):
            await here.publish(subject, b"x")
        async with asyncio.timeout(5):
            assert [(await heard.get())[0], (await heard.get())[0]] == ["secbeat.ev.a", "secbeat.ev.a.b.c"]

    @pytest.mark.parametrize("hot", [False, True])
    async def test_a_closed_subscription_hears_nothing_more(self, backend, hot):
        here = await backend.messaging()
        heard, control = [], asyncio.Queue()
        subscription = await here.subscribe("secbeat.hb.*", lambda *message: heard.append(message), hot=hot)
        await here.subscribe("secbeat.hb.*", lambda *message: control.put_nowait(message))
        await subscription.close()
        await here.publish("secbeat.hb.a", b"1")
        async with asyncio.timeout(5):
            await control.get()
        assert heard == []

    async def test_a_request_gets_the_responders_answer(self, backend):
        here, there = await backend.messaging(), await backend.messaging()

        async def answer(subject, payload):
            return subject.encode() + b" " + payload

        await here.respond("secbeat.cmd.n.*", answer)
        await self.ready(here)
        assert await there.request("secbeat.cmd.n.ping", b"hello", 5) == b"secbeat.cmd.n.ping hello"

    async def test_a_request_that_nobody_answers_is_unavailable(self, backend):
        with pytest.raises(Unavailable):
            await (await backend.messaging()).request("secbeat.cmd.n.ping", b"", 0.2)

    async def test_a_request_whose_answer_takes_too_long_is_unavailable(self, backend):
        here = await backend.messaging()

        async def never(subject, payload):
            await asyncio.Event().wait()

        await here.respond("secbeat.cmd.n.*", never)
        await self.ready(here)
        with pytest.raises(Unavailable):
            await here.request("secbeat.cmd.n.ping", b"", 0.1)

    async def test_a_connected_client_says_so(self, backend):
        assert (await backend.messaging()).connected

    @staticmethod
    async def ready(client):
        """A round trip on this connection: the server has seen its subscriptions."""
        heard = asyncio.Event()
        subscription = await client.subscribe("test.ready", lambda *_: heard.set())
        await client.publish("test.ready", b"")
        async with asyncio.timeout(5):
            await heard.wait()
        await subscription.close()
