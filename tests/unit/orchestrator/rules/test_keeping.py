"""Changing, keeping, expiring and telling the blocklist."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import pytest

from orchestrator.rules import Rules
from secbeat import ids
from secbeat.errors import RefusedError
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
        "metadata": {"a": 1},
    }
    assert (remove["action"], remove["target"]) == ("REMOVE_DYNAMIC_RULE", "203.0.113.7")


async def test_a_network_is_not_sent_to_original_nodes_which_know_addresses_only(world):
    await world.orchestrator().block(request("203.0.113.0/24"), by="alice")
    assert world.sent("secbeat.control.commands") == []


async def test_each_of_our_nodes_that_is_behind_is_told_the_version_on_its_own_subject(world):
    behind, current, original = Follower(ids.new_node_id()), Follower(ids.new_node_id()), Follower(ids.new_node_id())
    current.blocklist_version, original.legacy = 1, True
    world.followers = [behind, current, original]
    rules = world.orchestrator()
    await rules.block(request(), by="alice")
    await rules.tick()
    told = [(subject, BlocklistNotice.decode(payload).version) for subject, payload in world.messaging.published[1:]]
    assert told == [(f"secbeat.cmd.{behind.node_id}.blocklist", 1)]


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
    await world.clock.advance(16)
    assert [notice["version"] for notice in world.sent(subject)] == [1, 1]
    await world.clock.advance(15)
    assert world.sent(subject)[-1]["version"] == 2
    assert len(rules) == 0
    stop.request("test")
    await keeper


async def test_the_keeper_outlives_an_outage_of_the_store(world):
    rules, stop = world.orchestrator(), Stop()
    await rules.block(request(ttl_seconds=5), by="alice")
    keeper = asyncio.create_task(rules.run(stop))
    await world.clock.advance(4)
    rules._bucket.next_error = Unavailable("gone")
    await world.clock.advance(12)
    assert len(rules) == 1
    assert rules.listing() == []
    await world.clock.advance(16)
    assert len(rules) == 0
    stop.request("test")
    await keeper
