"""Who shares a batch with whom, and who learns what when it fails; the server is played."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from secbeat.bus.group import EXPECTED, FENCE_KEY, SINGLES, Denied, GroupCommit
from secbeat.store import Conflict, NotLeader, Unavailable
from secbeat.testing import until


class Fence:
    held, term = True, 7


class Server:
    """Answers a batch when it is let; ``guilty`` keys are refused with ``refusal``."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.guilty: set[str] = set()
        self.refusal: Exception = Conflict("wrong last sequence")
        self.silent = False
        self.leader = Fence.term
        self.sequence = 100

    def subject(self, key):
        return key

    def check_size(self, key, value):
        pass

    async def last(self, key):
        return b"{}", self.leader

    async def write(self, key, value, headers):
        assert headers[EXPECTED] == str(Fence.term)
        return (await self._store([key]))[0]

    async def batch(self, *writes):
        assert writes[-1][0] == FENCE_KEY
        return await self._store([key for key, _, _ in writes])

    async def _store(self, keys):
        self.sent.append([key for key in keys if key != FENCE_KEY])
        await self.open.wait()
        if self.silent:
            raise Unavailable("no answer")
        if self.guilty & set(keys):
            raise self.refusal
        self.sequence += len(keys)
        return list(range(self.sequence - len(keys) + 1, self.sequence + 1))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def fence() -> Fence:
    return Fence()


@pytest.fixture
def group(server, fence) -> GroupCommit:
    return GroupCommit(server, fence)


def start(group: GroupCommit, *keys: str, own: bool = True) -> list[asyncio.Task[int]]:
    headers = {EXPECTED: "0"} if own else {}
    return [asyncio.create_task(group.write(key, b"x", headers)) for key in keys]


async def settled(tasks):
    async with asyncio.timeout(5):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def waiting(server: Server, count: int) -> None:
    await until(lambda: len(server.sent) >= count)


async def test_what_comes_while_a_batch_is_under_way_goes_together_in_the_next(group, server):
    server.open.clear()
    first = start(group, "a")
    await waiting(server, 1)
    others = start(group, "b", "c", "d")
    await asyncio.sleep(0)
    assert server.sent == [["a"]]
    server.open.set()
    assert await settled([*first, *others]) == [101, 103, 104, 105]
    assert server.sent == [["a"], ["b", "c", "d"]]


async def test_a_second_write_of_a_key_waits_for_the_next_group_and_so_does_what_follows_it(group, server):
    await settled(start(group, "a", "b", "a", "c", "a", "b"))
    assert server.sent == [["a", "b", "c"], ["a", "b"], ["a"]]


async def test_a_few_writes_without_conditions_go_side_by_side_and_many_share_a_batch(group, server):
    few = [str(n) for n in range(5)]
    await settled(start(group, *few, own=False))
    assert server.sent == [[key] for key in few]
    server.sent.clear()
    many = [str(n) for n in range(SINGLES + 1)]
    await settled(start(group, *many, own=False))
    assert server.sent == [many]


@pytest.mark.parametrize("refusal", [Conflict("wrong last sequence"), Denied("maximum bytes exceeded")])
async def test_refused_writes_fail_alone_with_their_own_error(group, server, refusal):
    server.guilty, server.refusal = {"k3", "k9"}, refusal
    results = await settled(start(group, *(f"k{n}" for n in range(16))))
    assert [n for n, result in enumerate(results) if isinstance(result, type(refusal))] == [3, 9]
    assert all(isinstance(result, int) for n, result in enumerate(results) if n not in (3, 9))


async def test_a_refusal_under_another_leader_fails_all_and_is_not_tried_in_parts(group, server):
    server.guilty, server.leader = {"k3"}, Fence.term + 1
    results = await settled(start(group, *(f"k{n}" for n in range(16))))
    assert {type(result) for result in results} == {NotLeader}
    assert len(server.sent) == 1


async def test_an_unknown_outcome_is_unknown_for_all_and_nobody_waits_for_it_twice(group, server):
    server.open.clear()
    server.silent = True
    first = start(group, "a", "b")
    await waiting(server, 1)
    behind = start(group, "c", "d")
    await asyncio.sleep(0)
    server.open.set()
    assert {type(result) for result in await settled([*first, *behind])} == {Unavailable}
    assert server.sent == [["a", "b"]]
    server.silent = False
    assert await settled(start(group, "e")) == [101]


async def test_of_a_group_that_falls_silent_while_it_is_halved_the_stored_half_stays_stored(group, server):
    server.guilty = {"k15"}
    store = server._store

    async def silent_after_a_half(keys):
        sequences = await store(keys)
        server.silent = True
        return sequences

    server._store = silent_after_a_half
    results = await settled(start(group, *(f"k{n}" for n in range(16))))
    assert all(isinstance(result, int) for result in results[:8])
    assert {type(result) for result in results[8:]} == {Unavailable}


@pytest.mark.parametrize("change", [{"held": False}, {"term": Fence.term + 1}])
async def test_what_was_decided_under_a_leadership_that_is_over_is_not_sent_under_the_next(
    group, server, fence, change
):
    server.open.clear()
    first = start(group, "a")
    await waiting(server, 1)
    behind = start(group, "b")
    await asyncio.sleep(0)
    for name, value in change.items():
        setattr(fence, name, value)
    server.open.set()
    results = await settled([*first, *behind])
    assert results[0] == 101
    assert isinstance(results[1], NotLeader)
    assert server.sent == [["a"]]


async def test_who_does_not_lead_is_told_at_once(group, server, fence):
    fence.held = False
    with pytest.raises(NotLeader):
        await group.write("a", b"x", {})
    assert server.sent == []


async def test_a_cancelled_waiter_leaves_the_others_and_is_not_sent_if_it_was_not_yet(group, server):
    server.open.clear()
    first = start(group, "a", "b")
    await waiting(server, 1)
    behind = start(group, "c", "d")
    await asyncio.sleep(0)
    first[0].cancel()
    behind[0].cancel()
    await asyncio.sleep(0)
    server.open.set()
    results = await settled([*first, *behind])
    assert [type(result) for result in results] == [asyncio.CancelledError, int, asyncio.CancelledError, int]
    assert server.sent == [["a", "b"], ["d"]]


async def test_an_end_of_the_writing_or_a_defect_leaves_nobody_waiting(group, server):
    server.open.clear()
    first = start(group, "a")
    await waiting(server, 1)
    behind = start(group, "b")
    await asyncio.sleep(0)
    task = group._task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert {type(result) for result in await settled([*first, *behind])} == {Unavailable}
    server.open.set()
    assert isinstance((await settled(start(group, "c")))[0], int)
