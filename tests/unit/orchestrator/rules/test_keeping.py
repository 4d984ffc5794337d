"""Changing, keeping, expiring and telling the blocklist."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from orchestrator.rules import Rules
from orchestrator.rules.blocklist import shard_of
from secbeat import ids
from secbeat.errors import RefusedError, SecbeatError
from secbeat.service import Stop
from secbeat.store import NotLeader, Unavailable
from secbeat.testing import FakeClock, MemoryBucket, MemoryLease, MemoryMessaging
from secbeat.wire.rules import BlocklistNotice, BlockRequest


@dataclass
class Follower:
    node_id: str
    legacy: bool = False
    blocklist_version: int = 0


class World:
    """One store, one exchange, and orchestrators in front of them."""

    def __init__(self):
        self.clock, self.stored, self.messaging = FakeClock(), MemoryBucket(), MemoryMessaging()
        self.followers: list[Follower] = []

    def orchestrator(self, lease=None, **options):
        lease = lease or MemoryLease()
        return Rules(
            bucket=self.stored.fenced(lease),
            lease=lease,
            messaging=self.messaging,
            clock=self.clock,
            followers=lambda: self.followers,
            **options,
        )

    def sent(self, subject):
        return [json.loads(payload) for given, payload in self.messaging.published if given == subject]


@pytest.fixture
def world():
    return World()


def request(ip="203.0.113.7", **fields):
    return BlockRequest(ip=ip, **{"reason": "x", "ttl_seconds": 600, **fields})


async def test_a_block_outlives_a_restart_with_version_and_end(world):
    record, _ = await world.orchestrator().block(request(metadata={"ticket": 7}), by="alice")
    restarted = world.orchestrator()
    await restarted.tick()
    (found,) = restarted.listing()
    assert (found.ip, found.expires_at, found.metadata) == ("203.0.113.7", record.expires_at, {"ticket": 7})
    assert restarted.version == 1


async def test_an_unblock_outlives_a_restart_and_the_version_goes_on(world):
    first = world.orchestrator()
    await first.block(request(), by="alice")
    await first.unblock("203.0.113.7", by="alice")
    restarted = world.orchestrator()
    await restarted.tick()
    assert (restarted.listing(), restarted.version) == ([], 2)


async def test_what_expired_while_nobody_ran_is_dropped_at_the_start(world):
    await world.orchestrator().block(request(), by="alice")
    await world.clock.advance(601)
    restarted = world.orchestrator()
    await restarted.tick()
    assert (len(restarted), restarted.version) == (0, 2)


async def test_a_successor_reads_the_list_anew_when_it_wins_the_lease(world):
    first = MemoryLease("first")
    second = MemoryLease("second", held=False, leadership=first.leadership)
    one, two = world.orchestrator(first), world.orchestrator(second)
    await one.block(request("203.0.113.7"), by="alice")
    await two.tick()
    assert two.listing() == []
    second.acquire()
    await two.tick()
    assert [record.ip for record in two.listing()] == ["203.0.113.7"]


async def test_who_lost_the_lease_without_noticing_changes_nothing(world):
    first = MemoryLease("first")
    second = MemoryLease("second", held=False, leadership=first.leadership)
    rules = world.orchestrator(first)
    await rules.block(request("203.0.113.7"), by="alice")
    second.acquire(unnoticed=True)
    with pytest.raises(NotLeader):
        await rules.block(request("203.0.113.8"), by="alice")
    assert [record.ip for record in rules.listing()] == ["203.0.113.7"]


async def test_without_the_lease_nothing_is_asked_of_the_store(world):
    rules = world.orchestrator(MemoryLease(held=False))
    with pytest.raises(NotLeader):
        await rules.block(request(), by="alice")
    await rules.tick()
    assert world.stored.data == {}


async def test_an_unconfirmed_block_is_not_in_force_and_does_not_come_back_at_the_next_start(world):
    rules = world.orchestrator()
    await rules.block(request("203.0.113.1"), by="alice")
    rules._bucket.lost_reply = Unavailable("no answer")
    with pytest.raises(Unavailable):
        await rules.block(request("203.0.113.2"), by="alice")
    assert [record.ip for record in rules.listing()] == ["203.0.113.1"]
    await rules.tick()
    restarted = world.orchestrator()
    await restarted.tick()
    assert [record.ip for record in restarted.listing()] == ["203.0.113.1"]
    assert restarted.version == rules.version > 2


async def test_the_list_is_bounded_but_a_known_entry_can_be_prolonged(world):
    rules = world.orchestrator(max_entries=2)
    await rules.block(request("203.0.113.1"), by="alice")
    await rules.block(request("203.0.113.2"), by="alice")
    with pytest.raises(RefusedError) as refused:
        await rules.block(request("203.0.113.3"), by="alice")
    assert refused.value.code == "RULES_FULL"
    record, _ = await rules.block(request("203.0.113.2", ttl_seconds=6000), by="alice")
    assert record.ttl_seconds == 6000


async def test_two_thousand_entries_fill_values_of_which_five_times_as_much_is_still_small(world):
    rules = world.orchestrator()
    for number in range(2000):
        await rules.block(request(f"10.0.{number // 256}.{number % 256}", reason="r" * 500), by="alice")
    largest = max(len(value) for value in world.stored.data.values())
    assert largest * 5 < 512 * 1024
    restarted = world.orchestrator()
    await restarted.tick()
    assert len(restarted) == 2000


async def test_original_nodes_get_the_originals_command(world):
    rules = world.orchestrator()
    _, command_id = await rules.block(request(metadata={"a": 1}), by="alice")
    await rules.unblock("203.0.113.7", by="alice")
    add, remove = world.sent("secbeat.control.commands")
    assert add == {
        "command_id": command_id,
        "action": "ADD_DYNAMIC_RULE",
        "rule_type": "IP_BLOCK",
        "target": "203.0.113.7",
        "ttl_seconds": 600,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "metadata": {"block_reason": "x", "blocked_by": "alice", "metadata": {"a": 1}},
    }
    assert (remove["action"], remove["target"]) == ("REMOVE_DYNAMIC_RULE", "203.0.113.7")


async def test_the_originals_command_is_byte_for_byte_what_an_original_orchestrator_sent(world):
    recorded = (Path(__file__).parents[3] / "contract" / "fixtures" / "nats_orchestrator.bin").read_bytes()
    theirs = recorded.partition(b"PUB secbeat.control.commands ")[2].partition(b"\r\n")[2].partition(b"\r\n")[0]
    await world.orchestrator().block(request("203.0.113.7", reason="manual test"), by="manual_operator")
    ((_, ours),) = [one for one in world.messaging.published if one[0] == "secbeat.control.commands"]
    for name in ("command_id", "timestamp"):
        ours = ours.replace(json.loads(ours)[name].encode(), json.loads(theirs)[name].encode())
    assert ours == theirs


async def test_a_network_is_not_sent_to_original_nodes_which_know_addresses_only(world):
    await world.orchestrator().block(request("203.0.113.0/24"), by="alice")
    assert world.sent("secbeat.control.commands") == []


async def test_each_of_our_nodes_that_is_behind_is_told_what_leads_to_the_version_on_its_own_subject(world):
    behind, current, original = Follower(ids.new_node_id()), Follower(ids.new_node_id()), Follower(ids.new_node_id())
    current.blocklist_version, original.legacy = 1, True
    world.followers = [behind, current, original]
    rules = world.orchestrator()
    await rules.block(request(), by="alice")
    await rules.tick()
    told = [one for one in world.messaging.published if one[0].startswith("secbeat.cmd.")]
    ((subject, payload),) = told
    notice = BlocklistNotice.decode(payload)
    assert subject == f"secbeat.cmd.{behind.node_id}.blocklist"
    assert (notice.since, notice.version, [rule.ip for rule in notice.blocked]) == (0, 1, ["203.0.113.7"])


async def test_the_keeper_tells_at_once_expires_in_time_and_repeats_to_who_missed_it(world):
    node = Follower(ids.new_node_id())
    world.followers = [node]
    rules, stop = world.orchestrator(), Stop()
    keeper = asyncio.create_task(rules.run(stop))
    subject = f"secbeat.cmd.{node.node_id}.blocklist"
    await world.clock.advance(0)
    await rules.block(request(ttl_seconds=20), by="alice")
    await world.clock.advance(0)
    assert [notice["version"] for notice in world.sent(subject)] == [1]
    await world.clock.advance(6)
    assert [notice["version"] for notice in world.sent(subject)] == [1, 1]
    await world.clock.advance(15)
    assert (world.sent(subject)[-1]["version"], world.sent(subject)[-1]["removed"]) == (2, ["203.0.113.7"])
    assert len(rules) == 0
    stop.request("test")
    await keeper


async def test_the_keeper_outlives_an_outage_of_the_store(world):
    rules, stop = world.orchestrator(), Stop()
    await rules.block(request(ttl_seconds=5), by="alice")
    keeper = asyncio.create_task(rules.run(stop))
    await world.clock.advance(4)
    rules._bucket.next_error = Unavailable("gone")
    await world.clock.advance(2)
    assert len(rules) == 1
    assert rules.listing() == []
    await world.clock.advance(6)
    assert len(rules) == 0
    stop.request("test")
    await keeper


def notices(world, node):
    return [BlocklistNotice.model_validate(one) for one in world.sent(f"secbeat.cmd.{node.node_id}.blocklist")]


async def test_a_node_that_is_too_far_behind_for_a_message_is_told_to_fetch(world):
    node = Follower(ids.new_node_id())
    world.followers = [node]
    rules = world.orchestrator()
    for number in range(201):
        await rules.block(request(f"10.0.0.{number}"), by="alice")
    await rules.tick()
    (notice,) = notices(world, node)
    assert (notice.version, notice.since, notice.blocked) == (201, None, [])
    node.blocklist_version = 1
    await rules.tick()
    assert len(notices(world, node)[-1].blocked) == 200


async def test_a_burst_of_blocks_is_told_together(world):
    node = Follower(ids.new_node_id())
    world.followers = [node]
    rules, stop = world.orchestrator(), Stop()
    keeper = asyncio.create_task(rules.run(stop))
    await world.clock.advance(0)
    for number in range(50):
        await rules.block(request(f"10.0.0.{number}"), by="alice")
        await world.clock.advance(0.001)
    await world.clock.advance(0.2)
    assert notices(world, node)[-1].version == 50
    assert len(notices(world, node)) <= 4
    stop.request("test")
    await world.clock.advance(1)
    await keeper


async def test_nobody_is_told_of_a_list_that_has_not_been_read(world):
    await world.orchestrator().block(request(), by="alice")
    standby = world.orchestrator(MemoryLease(held=False))
    for asking in (standby.complete(), standby.difference(0), standby.reading()):
        with pytest.raises(NotLeader):
            await asking
    leader = world.orchestrator()
    version, records = await leader.complete()
    assert (version, [record.ip for record in records]) == (1, ["203.0.113.7"])
    unread = world.orchestrator()
    unread._bucket.next_error = Unavailable("gone")
    with pytest.raises(Unavailable):
        await unread.complete()


async def test_who_lost_the_lease_shows_people_what_it_knew_and_nodes_nothing(world):
    lease = MemoryLease()
    rules = world.orchestrator(lease)
    await rules.block(request(), by="alice")
    lease.lose()
    assert [record.ip for record in await rules.reading()] == ["203.0.113.7"]
    with pytest.raises(NotLeader):
        await rules.complete()


async def test_entries_that_end_together_leave_in_batches_while_blocks_go_on(world):
    rules = world.orchestrator()
    for number in range(300):
        await rules.block(request(f"10.1.{number // 250}.{number % 250}", ttl_seconds=10), by="alice")
    await world.clock.advance(11)
    expiring = asyncio.create_task(rules.tick())
    await asyncio.sleep(0)
    await rules.block(request("203.0.113.7"), by="alice")
    await expiring
    assert [record.ip for record in rules.listing()] == ["203.0.113.7"]
    assert len(rules) == 1


async def test_an_original_node_is_sent_a_prolonged_block_again_when_its_older_timer_has_run_out(world):
    rules = world.orchestrator()
    await rules.block(request(ttl_seconds=60), by="alice")
    await rules.block(request(ttl_seconds=600), by="alice")
    await world.clock.advance(59)
    await rules.tick()
    assert [one["ttl_seconds"] for one in world.sent("secbeat.control.commands")] == [60, 600]
    await world.clock.advance(2)
    await rules.tick()
    await rules.tick()
    assert [one["ttl_seconds"] for one in world.sent("secbeat.control.commands")] == [60, 600, 539]


async def test_an_original_node_that_registers_is_sent_the_whole_list_once(world):
    rules = world.orchestrator()
    await rules.block(request("203.0.113.7"), by="alice")
    await rules.block(request("2001:db8::7", ttl_seconds=50), by="bob")
    await rules.block(request("203.0.113.0/24"), by="bob")
    await rules.tick()
    before = len(world.sent("secbeat.control.commands"))
    await world.clock.advance(20)
    world.followers = [Follower(ids.new_node_id(), legacy=True)]
    await rules.tick()
    await rules.tick()
    again = world.sent("secbeat.control.commands")[before:]
    assert {(one["action"], one["target"], one["ttl_seconds"]) for one in again} == {
        ("ADD_DYNAMIC_RULE", "203.0.113.7", 580),
        ("ADD_DYNAMIC_RULE", "2001:db8::7", 30),
    }
    assert len(again) == 2


async def test_metadata_that_is_too_long_is_refused(world):
    with pytest.raises(SecbeatError) as refused:
        await world.orchestrator().block(request(metadata="m" * 3000), by="alice")
    assert refused.value.code == "RULE_INVALID"
    assert world.stored.data == {}


async def test_a_key_never_outgrows_half_a_message(world):
    rules = world.orchestrator()
    addresses = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(4_000_000))
    same_shard = (ip for ip in addresses if shard_of(ip) == 7)

    async def fill():
        for ip in islice(same_shard, 400):
            await rules.block(request(ip, metadata="m" * 2000), by="alice")

    with pytest.raises(RefusedError) as refused:
        await fill()
    assert refused.value.code == "RULES_FULL"
    assert len(rules) > 100
    assert max(len(value) for value in world.stored.data.values()) <= 512 * 1024
