"""Group commit: fenced writes that wait while others are under way go together, in one atomic batch with one fence.

A batch costs the server a directory of its own and one sync to disk, however many keys it holds; a write with a
condition of its own needs one (``secbeat.bus.bucket``). A write that finds nobody before it leaves at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from secbeat.store import Conflict, NotLeader, Unavailable
from secbeat.subjects import LEADER_KEY

FENCE_KEY = "fence"
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = f"{EXPECTED}-Subject"
# The server takes 1,000 messages in a batch (err_code 10199) and holds a stream's lock while it commits one.
MAX_WRITES = 250
MAX_BYTES = 1024 * 1024
# So many writes without a condition of their own cost less as single messages, sent side by side.
SINGLES = 12


class Denied(Unavailable):
    """The server refused, for another reason than a condition: nothing was stored."""


class Fence(Protocol):
    """The lease as a fenced bucket sees it."""

    @property
    def held(self) -> bool: ...

    @property
    def term(self) -> int:
        """The revision of ``leader`` that our leadership was written with."""
        ...


class Messages(Protocol):
    """The part of ``secbeat.bus.bucket.Store`` that is needed here."""

    def subject(self, key: str) -> str: ...

    def check_size(self, key: str, value: bytes) -> None: ...

    async def last(self, key: str) -> tuple[bytes, int]: ...

    async def write(self, key: str, value: bytes, headers: Mapping[str, str]) -> int: ...

    async def batch(self, *writes: tuple[str, bytes, Mapping[str, str]]) -> list[int]: ...


@dataclass(eq=False)
class _Write:
    """One write and who waits for it. ``term`` is that of the leadership in which it was decided."""

    key: str
    value: bytes
    headers: Mapping[str, str]
    term: int
    done: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def conditional(self) -> bool:
        return EXPECTED in self.headers

    def succeed(self, sequence: int) -> None:
        if not self.done.done():  # its waiter may have been cancelled
            self.done.set_result(sequence)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class GroupCommit:
    """Fenced writes to one bucket; at most one group is under way.

    Writes of one key keep their order. A group whose batch is refused is halved until the guilty write stands alone:
    the others are stored.
    """

    def __init__(self, store: Messages, fence: Fence) -> None:
        self._store, self._fence = store, fence
        self._waiting: deque[_Write] = deque()
        self._task: asyncio.Task[None] | None = None

    async def write(self, key: str, value: bytes, headers: Mapping[str, str]) -> int:
        """Store one message; returns its sequence. A waiter that is cancelled leaves the others undisturbed.

        Raises:
            Conflict: the condition in ``headers`` does not hold.
            NotLeader: the lease is not ours, or not the one under which this write was decided; nothing was stored.
            Unavailable: refused for another reason, or not confirmed.
            ValueError: the value is larger than the server takes.
        """
        self._store.check_size(key, value)
        if not self._fence.held:
            raise NotLeader("the lease is not ours")
        write = _Write(key, value, headers, self._fence.term)
        self._waiting.append(write)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="group commit")
        return await write.done

    async def _run(self) -> None:
        try:
            while group := self._next():
                if len(group) > SINGLES or any(write.conditional for write in group):
                    await self._settle(group)
                else:
                    await asyncio.gather(*(self._settle([write]) for write in group))
        finally:
            self._task = None
            self._give_up("the writing was ended")

    def _next(self) -> list[_Write]:
        """The writes that go together now, each key once; the others stay, in their order."""
        group: list[_Write] = []
        keys: set[str] = set()
        later: list[_Write] = []
        size = 0
        while self._waiting and len(group) < MAX_WRITES:
            write = self._waiting.popleft()
            if write.done.done():
                continue  # cancelled before it was sent: it does not happen
            if write.term != self._fence.term:
                write.fail(NotLeader("the lease is not ours"))
            elif write.key in keys:
                later.append(write)
            elif group and size + len(write.value) > MAX_BYTES:
                later.append(write)
                break
            else:
                group.append(write)
                keys.add(write.key)
                size += len(write.value)
        self._waiting.extendleft(reversed(later))
        return group

    async def _settle(self, group: list[_Write]) -> None:
        """Commit, and tell every waiter how it ended."""
        try:
            await self._commit(group)
        except NotLeader as error:
            self._fail(group, NotLeader, str(error))
        except Unavailable as error:
            self._fail(group, Unavailable, str(error))
            # They would wait as long once more, for the same silence.
            self._give_up(str(error))
        except BaseException:
            self._fail(group, Unavailable, "the writing was ended")
            raise

    async def _commit(self, group: list[_Write]) -> None:
        try:
            sequences = await self._send(group)
        except (Conflict, Denied) as error:
            if isinstance(error, Conflict):
                await self._check_leader(group)
            if len(group) == 1:
                group[0].fail(error)
                return
            middle = len(group) // 2
            await self._commit(group[:middle])
            await self._commit(group[middle:])
            return
        for write, sequence in zip(group, sequences, strict=True):
            write.succeed(sequence)

    async def _send(self, group: list[_Write]) -> list[int]:
        if not self._fence.held:
            raise NotLeader("the lease is not ours")
        first = group[0]
        condition = {EXPECTED: str(first.term), EXPECTED_SUBJECT: self._store.subject(LEADER_KEY)}
        if len(group) == 1 and not first.conditional:
            return [await self._store.write(first.key, first.value, {**first.headers, **condition})]
        messages = [(write.key, write.value, write.headers) for write in group]
        return (await self._store.batch(*messages, (FENCE_KEY, b"", condition)))[:-1]

    async def _check_leader(self, group: list[_Write]) -> None:
        """The refusal of a batch does not tell whose condition failed; without conditions of their own, the fence's."""
        if any(write.conditional for write in group):
            _, term = await self._store.last(LEADER_KEY)
            if term == group[0].term:
                return
        raise NotLeader("another process leads") from None

    def _give_up(self, why: str) -> None:
        """Fail what waits and was not sent."""
        self._fail(self._waiting, Unavailable, why)
        self._waiting.clear()

    @staticmethod
    def _fail(writes: list[_Write] | deque[_Write], kind: type[Unavailable], why: str) -> None:
        for write in writes:
            write.fail(kind(why))
