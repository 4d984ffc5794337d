from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest

from node.agent import Agent
from node.drain import Drain
from node.heartbeats import Beats
from node.link import Link
from node.load import Sampler
from node.load.cpu import Reading
from node.membership import Member
from node.registration import Unreachable
from node.rules import RulesFollower
from secbeat import subjects
from secbeat.errors import ConfigError
from secbeat.service import Stop, Tasks
from secbeat.testing import MemoryMessaging
from secbeat.wire.heartbeat import decode_frame
from secbeat.wire.rules import BlocklistNotice, RulesSnapshot

NODE = str(uuid.uuid4())


class Meter:
    def read(self, wall: float) -> Reading:
        return Reading(0.0, wall)


class Bus:
    def __init__(self, messaging: MemoryMessaging) -> None:
        self.messaging = messaging
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Connections:
    """A connector whose next results are scripted."""

    def __init__(self) -> None:
        self.exchange: list = []
        self.opened: list[Bus] = []
        self.on_closed: list = []
        self.script: list = []

    async def __call__(self, on_closed) -> Bus:
        if self.script and (error := self.script.pop(0)) is not None:
            raise error
        self.on_closed.append(on_closed)
        self.opened.append(Bus(MemoryMessaging(self.exchange)))
        return self.opened[-1]


class Orchestrator:
    def __init__(self) -> None:
        self.heartbeats: list = []
        self.answer: object = True
        self.snapshots: list = [RulesSnapshot(version=0, complete=True, blocked=[])]
        self.asked: list = []

    async def heartbeat(self, heartbeat) -> bool:
        self.heartbeats.append(heartbeat)
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, asyncio.Event):
            await self.answer.wait()
            return True
        return bool(self.answer)

    async def rules(self, since, *, token) -> RulesSnapshot:
        self.asked.append((since, token))
        if not self.snapshots:
            raise Unreachable("none")
        found = self.snapshots.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


class Membership:
    def __init__(self, member: Member) -> None:
        self.member: Member | None = None
        self._member = member
        self.orchestrator = Orchestrator()
        self.again_calls = 0

    async def enter(self) -> Member:
        self.member = self._member
        return self._member

    def again(self) -> None:
        self.again_calls += 1

    async def run(self) -> None:
        await asyncio.Event().wait()


class Rig:
    def __init__(self, plane, clock, tmp_path, background, *, legacy: bool) -> None:
        self.clock = clock
        self.membership = Membership(Member(NODE, "web", 5.0, legacy=legacy))
        self.connections = Connections()
        self.refused = 0
        self.link = Link(self.connections, clock, on_refused=self._refused, on_connected=self._poke)
        self.rules = RulesFollower(plane, clock, source=lambda: self.membership.orchestrator, token=lambda: "token")
        self.drain = Drain(
            plane, clock, boot_id="b", record_file=tmp_path / "d", longest=60, propagation=10,
            on_change=self._poke,
        )  # fmt: skip
        self.agent = Agent(
            membership=self.membership, link=self.link, rules=self.rules, beats=Beats(str(uuid.uuid4()), clock),
            sampler=Sampler(plane, Meter(), clock), plane=plane, drain=self.drain, clock=clock,
        )  # fmt: skip
        self.heard: list = []
        listener = MemoryMessaging(self.connections.exchange)
        background(
            listener.subscribe(subjects.HEARTBEATS, lambda _s, payload: self.heard.append(decode_frame(payload)))
        )
        self.stop = Stop()
        self.tasks = Tasks(self.stop)
        background(self.agent.run(self.tasks))

    def _poke(self) -> None:
        self.agent.poke()

    def _refused(self) -> None:
        self.refused += 1


@pytest.fixture
async def rig(plane, clock, tmp_path, background):
    rigs = []

    def make(*, legacy: bool = False) -> Rig:
        rigs.append(Rig(plane, clock, tmp_path, background, legacy=legacy))
        return rigs[-1]

    yield make
    for one in rigs:
        await one.tasks.close()


async def test_heartbeats_come_at_the_interval_with_increasing_numbers(rig, clock):
    made = rig()
    await clock.advance(51)
    assert 10 <= len(made.heard) <= 12
    assert [frame.seq for frame in made.heard] == sorted({frame.seq for frame in made.heard})
    assert {(frame.node_id, frame.status, frame.pool) for frame in made.heard} == {(NODE, "Active", "web")}
    assert made.membership.orchestrator.heartbeats == []


async def test_the_start_of_a_drain_is_told_at_once_and_its_end_as_well(rig, clock):
    made = rig()
    await clock.advance(7)
    count = len(made.heard)
    made.drain.begin(reason="x")
    await clock.advance(0.01)
    assert [frame.status for frame in made.heard[count:]] == ["Draining"]
    made.drain.resume("")
    await clock.advance(0.01)
    assert made.heard[-1].status == "Active"


async def test_the_last_word_is_terminating_on_both_ways_for_a_node_of_the_originals_form(rig, clock):
    made = rig(legacy=True)
    await clock.advance(6)
    await made.agent.goodbye()
    assert [frame.status for frame in made.heard] == ["Terminating"]
    assert made.membership.orchestrator.heartbeats[-1].status == "Terminating"
    assert made.connections.opened[-1].closed


async def test_a_joined_node_says_goodbye_on_nats_only(rig, clock):
    made = rig()
    await clock.advance(6)
    await made.agent.goodbye()
    assert made.heard[-1].status == "Terminating"
    assert made.membership.orchestrator.heartbeats == []


@pytest.mark.parametrize("legacy", [False, True])
async def test_no_heartbeat_follows_the_last_word(rig, clock, legacy):
    made = rig(legacy=legacy)
    await clock.advance(6)
    await made.agent.goodbye()
    made.agent.poke()
    await clock.advance(30)
    assert made.heard[-1].status == "Terminating"
    if legacy:
        assert made.membership.orchestrator.heartbeats[-1].status == "Terminating"


async def test_an_orchestrator_that_cannot_be_reached_does_not_hold_the_goodbye_up(rig, clock):
    made = rig(legacy=True)
    await clock.advance(6)
    made.membership.orchestrator.answer = Unreachable("gone")
    async with asyncio.timeout(5):
        await made.agent.goodbye()


async def test_an_unknown_node_registers_anew_and_an_unreachable_orchestrator_changes_nothing(rig, clock):
    made = rig(legacy=True)
    await clock.advance(1)
    made.membership.orchestrator.answer = Unreachable("x")
    await clock.advance(20)
    assert made.membership.again_calls == 0
    made.membership.orchestrator.answer = False
    await clock.advance(5)
    assert made.membership.again_calls >= 1
    assert {beat.status for beat in made.membership.orchestrator.heartbeats} == {"Active"}


async def test_heartbeats_do_not_pile_up_behind_an_orchestrator_that_hangs(rig, clock):
    made = rig(legacy=True)
    made.membership.orchestrator.answer = asyncio.Event()
    await clock.advance(100)
    assert len(made.membership.orchestrator.heartbeats) == 1
    made.membership.orchestrator.answer.set()
    await clock.advance(11)
    assert len(made.membership.orchestrator.heartbeats) >= 3


async def test_the_originals_form_carries_percent(rig, clock):
    made = rig(legacy=True)
    await clock.advance(6)
    memory = made.membership.orchestrator.heartbeats[-1].metrics.memory_usage
    assert 1 < memory <= 100


async def test_no_nats_is_tried_again_with_growing_pauses_and_heartbeats_begin_when_it_is_there(rig, clock):
    made = rig()
    made.connections.script = [ConfigError("NATS_UNREACHABLE", why="x")] * 4
    await clock.advance(0.1)
    assert made.heard == []
    await clock.advance(60)
    assert made.heard
    assert len(made.connections.opened) == 1


async def test_the_first_heartbeat_follows_the_first_connection_at_once(rig, clock):
    made = rig()
    made.connections.script = [ConfigError("NATS_UNREACHABLE", why="x")]
    await clock.advance(1.1)
    assert [frame.status for frame in made.heard] == ["Active"]


async def test_refused_credentials_ask_for_new_ones(rig, clock):
    made = rig()
    made.connections.script = [ConfigError("NATS_AUTH", why="x")]
    await clock.advance(0.1)
    assert made.refused == 1
    await clock.advance(3)
    assert made.heard
    assert len(made.connections.opened) == 1


async def test_a_renewal_opens_the_new_connection_before_it_closes_the_old_one(rig, clock):
    made = rig()
    await clock.advance(1)
    made.link.renew()
    await clock.advance(0.01)
    first, second = made.connections.opened
    assert (first.closed, second.closed) == (True, False)
    made.connections.on_closed[0]()  # the old one's end is nobody's concern any more
    await clock.advance(1)
    assert (made.refused, len(made.connections.opened)) == (0, 2)
    made.connections.on_closed[1]()
    await clock.advance(1)
    assert (made.refused, len(made.connections.opened)) == (1, 3)


async def test_new_credentials_end_a_long_pause(rig, clock):
    made = rig()
    made.connections.script = [ConfigError("NATS_AUTH", why="x")] * 8
    await clock.advance(40)
    made.connections.script.clear()
    made.link.renew()
    await clock.advance(0.01)
    assert len(made.connections.opened) == 1


def snapshot(clock, version: int, *ips: str, complete: bool = True, removed=(), seconds: float = 60) -> RulesSnapshot:
    end = clock.now() + timedelta(seconds=seconds)
    return RulesSnapshot.model_validate({
        "version": version, "complete": complete, "blocked": [{"ip": ip, "expires_at": end} for ip in ips],
        "removed": list(removed),
    })  # fmt: skip


def notice(version: int, since: int | None = None, *, clock=None, ips=(), removed=(), seconds=60) -> BlocklistNotice:
    end = None if clock is None else clock.now() + timedelta(seconds=seconds)
    return BlocklistNotice.model_validate({
        "version": version, "since": since, "blocked": [{"ip": ip, "expires_at": end} for ip in ips],
        "removed": list(removed),
    })  # fmt: skip


async def settled(clock, condition) -> None:
    """Let what is due happen; no time passes."""
    async with asyncio.timeout(10):
        while not condition():
            await clock.advance(0.0)
            await asyncio.sleep(0)


async def test_the_blocklist_is_fetched_at_the_join_and_then_only_its_changes(rig, plane, clock):
    made = rig()
    orchestrator = made.membership.orchestrator
    orchestrator.snapshots = [snapshot(clock, 3, "1.1.1.1", "2.2.2.2")]
    await settled(clock, lambda: made.rules.version == 3)
    assert orchestrator.asked == [(None, "token")]
    made.rules.notice(notice(3))
    await clock.advance(1)
    assert len(orchestrator.asked) == 1
    orchestrator.snapshots = [snapshot(clock, 5, "3.3.3.0/24", complete=False, removed=["1.1.1.1"])]
    made.rules.notice(notice(5))
    await settled(clock, lambda: made.rules.version == 5)
    assert orchestrator.asked[-1] == (3, "token")
    newest = plane.blocklists[-1]
    assert [newest.blocks(ip) for ip in ("1.1.1.1", "2.2.2.2", "3.3.3.9")] == [False, True, True]


async def test_a_block_ends_by_itself_when_its_time_is_over(rig, plane, clock):
    made = rig()
    made.membership.orchestrator.snapshots = [snapshot(clock, 3, "1.1.1.1", seconds=30)]
    await settled(clock, lambda: made.rules.version == 3)
    await clock.advance(29.9)
    assert plane.blocklists[-1].blocks("1.1.1.1")
    await clock.advance(0.1)
    assert not plane.blocklists[-1].blocks("1.1.1.1")
    assert plane.blocklists[-1].version == 3
    await clock.advance(6)
    assert plane.blocklists[-1].size == 0


async def test_an_unusable_snapshot_changes_nothing(rig, plane, clock):
    made = rig()
    made.membership.orchestrator.snapshots = [snapshot(clock, 3, "1.1.1.1")]
    await settled(clock, lambda: made.rules.version == 3)
    made.membership.orchestrator.snapshots = [snapshot(clock, 4, "not an address")]
    made.rules.notice(notice(4))
    await settled(clock, lambda: len(made.membership.orchestrator.asked) == 2)
    await asyncio.sleep(0.05)
    await clock.advance(1)
    assert made.rules.version == 3
    assert plane.blocklists[-1].blocks("1.1.1.1")


async def test_a_node_does_not_report_before_it_has_read_the_blocklist_and_tries_until_it_has(
    rig, plane, clock, caplog
):
    made = rig()
    held = []
    made.rules._on_complete = lambda: held.append("released")
    orchestrator = made.membership.orchestrator
    orchestrator.snapshots = []
    await clock.advance(60)
    assert len(orchestrator.asked) > 3
    assert (made.heard, held, plane.blocklists) == ([], [], [])
    assert "Not in rotation yet: the blocklist cannot be read: none" in caplog.text
    orchestrator.snapshots = [snapshot(clock, 3, "1.1.1.1")]
    await clock.advance(16)
    assert (made.heard[0].blocklist_version, held) == (3, ["released"])
    assert plane.blocklists[-1].blocks("1.1.1.1")


async def test_an_original_orchestrator_has_no_blocklist_and_the_node_reports_all_the_same(rig, clock):
    made = rig(legacy=True)
    made.membership.orchestrator.snapshots = [None]
    await clock.advance(6)
    assert made.membership.orchestrator.heartbeats
    assert (made.rules.complete, made.rules.version) == (True, 0)


class TestADifference:
    @pytest.fixture
    async def made(self, rig, clock):
        made = rig()
        made.membership.orchestrator.snapshots = [snapshot(clock, 3, "1.1.1.1", "2.2.2.2")]
        await settled(clock, lambda: made.rules.version == 3)
        return made

    async def test_it_is_applied_as_it_comes_without_a_fetch(self, made, plane, clock):
        made.rules.notice(notice(5, 3, clock=clock, ips=["3.3.3.0/24"], removed=["1.1.1.1"]))
        assert [plane.blocklists[-1].blocks(ip) for ip in ("1.1.1.1", "2.2.2.2", "3.3.3.9")] == [False, True, True]
        await clock.advance(1)
        assert (made.rules.version, plane.totals.blocklist_version) == (5, 5)
        assert len(made.membership.orchestrator.asked) == 1

    async def test_one_that_begins_before_the_nodes_version_is_as_good(self, made, plane, clock):
        made.rules.notice(notice(4, 3, clock=clock, ips=["4.4.4.4"]))
        made.rules.notice(notice(6, 3, clock=clock, ips=["5.5.5.5"], removed=["4.4.4.4"]))
        assert [plane.blocklists[-1].blocks(ip) for ip in ("4.4.4.4", "5.5.5.5")] == [False, True]
        assert made.rules.version == 6

    async def test_repetitions_and_older_ones_change_nothing(self, made, plane, clock):
        older, newer = notice(4, 3, clock=clock, ips=["4.4.4.4"]), notice(5, 4, removed=["4.4.4.4"])
        for one in (older, newer, older, newer, older):
            made.rules.notice(one)
        assert not plane.blocklists[-1].blocks("4.4.4.4")
        await clock.advance(1)
        assert (made.rules.version, len(made.membership.orchestrator.asked)) == (5, 1)

    async def test_a_gap_makes_the_node_fetch(self, made, plane, clock):
        orchestrator = made.membership.orchestrator
        orchestrator.snapshots = [snapshot(clock, 9, "9.9.9.9", complete=False)]
        made.rules.notice(notice(9, 7, clock=clock, ips=["7.7.7.7"]))
        assert not plane.blocklists[-1].blocks("7.7.7.7")
        await settled(clock, lambda: made.rules.version == 9)
        assert orchestrator.asked[-1] == (3, "token")
        assert plane.blocklists[-1].blocks("9.9.9.9")

    async def test_one_that_is_unusable_changes_nothing_and_makes_the_node_fetch(self, made, plane, clock):
        made.rules.notice(notice(4, 3, clock=clock, ips=["nonsense"], removed=["1.1.1.1"]))
        assert plane.blocklists[-1].blocks("1.1.1.1")
        await clock.advance(0.1)
        assert len(made.membership.orchestrator.asked) == 2

    async def test_an_orchestrator_whose_list_began_anew_is_followed(self, made, plane, clock):
        made.membership.orchestrator.snapshots = [snapshot(clock, 1, "9.9.9.9")]
        made.rules.notice(notice(1))
        await settled(clock, lambda: made.rules.version == 1)
        assert [plane.blocklists[-1].blocks(ip) for ip in ("1.1.1.1", "9.9.9.9")] == [False, True]
