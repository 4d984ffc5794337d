"""Leadership in memory, with the one dangerous case: a holder that has not noticed that it lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from secbeat.service import Stop


@dataclass
class Leadership:
    """What the store knows: who leads, and the highest epoch ever."""

    leader: MemoryLease | None = None
    epoch: int = 0


class MemoryLease:
    """A Lease; held from the start unless told otherwise. Leases that share a Leadership compete.

    Attributes:
        held: what the holder believes.
        confirmed: what the store knows; a fenced MemoryBucket goes by this.
    """

    def __init__(
        self, holder: str = "test", *, held: bool = True, epoch: int = 0, leadership: Leadership | None = None
    ) -> None:
        self.holder = holder
        self.leadership = leadership or Leadership()
        self.leadership.epoch = max(self.leadership.epoch, epoch - 1)
        self._epoch = 0
        self._believes = asyncio.Event()
        self._lost = asyncio.Event()
        if held:
            self.acquire()

    @property
    def held(self) -> bool:
        return self._believes.is_set()

    @property
    def confirmed(self) -> bool:
        """Whether the store would accept this holder's fenced write."""
        return self.held and self.leadership.leader is self

    @property
    def epoch(self) -> int:
        return self._epoch

    def acquire(self, *, unnoticed: bool = False) -> None:
        """Take the lease, from whoever has it; ``unnoticed``: the loser goes on believing that it leads."""
        loser = self.leadership.leader
        if loser is not None and loser is not self and not unnoticed:
            loser.lose()
        self.leadership.epoch += 1
        self.leadership.leader = self
        self._epoch = self.leadership.epoch
        self._lost.clear()
        self._believes.set()

    def lose(self) -> None:
        """The lease ran out, and this holder knows."""
        if self.leadership.leader is self:
            self.leadership.leader = None
        self._believes.clear()
        self._lost.set()

    async def wait_held(self) -> None:
        """Until the lease is held."""
        await self._believes.wait()

    async def wait_lost(self) -> None:
        """Until the lease is not held."""
        if self.held:
            await self._lost.wait()

    async def run(self, stop: Stop) -> None:
        """Take the lease if nobody has it, then wait for the end and release."""
        if self.leadership.leader is None:
            self.acquire()
        await stop.wait()
        await self.release()

    async def release(self) -> None:
        """Give the lease up in order."""
        self.lose()
