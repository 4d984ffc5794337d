"""Virtual time: a clock that only a test moves."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

_START = datetime(2026, 1, 1, tzinfo=UTC)
_MIN_ROUNDS, _MAX_ROUNDS = 10, 10_000


class FakeClock:
    """A Clock whose time passes only in :meth:`advance`.

    Sleepers wake in the order of their deadlines, each at its own moment, so that code which sleeps in a loop takes
    all its turns. Waits of asyncio itself (``asyncio.timeout``) are not moved: they follow the event loop.
    """

    def __init__(self, start: datetime = _START) -> None:
        self._start = start
        self._elapsed = 0.0
        self._skew = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self._elapsed

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed + self._skew)

    @property
    def sleepers(self) -> int:
        """How many tasks wait on this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass: whoever is due wakes in order and runs until nothing is ready to run."""
        if seconds < 0:
            raise ValueError("monotonic time does not go back")
        await settle()
        end = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self._elapsed = max(self._elapsed, moment)
            future.set_result(None)
            await settle()
        self._elapsed = end
        await settle()

    def jump(self, seconds: float) -> None:
        """Move the wall clock only, forth or back, as NTP or a person does."""
        self._skew += seconds


async def settle() -> None:
    """Let every task run until none is ready; work of other threads and sockets is not waited for."""
    # asyncio tells in no public way whether it is idle; where the list is missing the fixed rounds have to do.
    ready = getattr(asyncio.get_running_loop(), "_ready", ())
    for turn in range(_MAX_ROUNDS):
        await asyncio.sleep(0)
        if turn >= _MIN_ROUNDS and not ready:
            return
