"""Leadership of this process: lead while the lease is held, follow otherwise, step down when told of a higher epoch."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from orchestrator.core import Core
from secbeat.clock import Clock
from secbeat.service import Stop
from secbeat.store import Lease, Unavailable

log = logging.getLogger("ResourceManager")

_LOOK_SECONDS = 0.25
_RETRY_SECONDS = 1.0
_STEP_DOWN_EVERY = 30.0


class Holdable(Lease, Protocol):
    """A lease that can be waited for and given up (``secbeat.bus`` LeaseKeeper)."""

    async def wait_held(self) -> None: ...

    async def release(self) -> None: ...


class Leading:
    """Ties a Core to a lease."""

    def __init__(self, core: Core, lease: Holdable, clock: Clock) -> None:
        self._core = core
        self._lease = lease
        self._clock = clock
        self._stepped_down = float("-inf")
        self._step_down = False

    def superseded(self, epoch: int | None) -> None:
        """A receiver has seen a higher epoch of this cluster than ours: somebody else leads, or did after a restore.

        Leading ends; the lease, if it comes back, comes with a higher epoch.
        """
        saw = getattr(self._lease, "saw", None)
        if epoch is not None and saw is not None:
            saw(epoch)
        now = self._clock.monotonic()
        if now - self._stepped_down >= _STEP_DOWN_EVERY:
            self._stepped_down, self._step_down = now, True
            log.error(
                "ResourceManager steps down: a receiver has seen a higher epoch than %d",
                self._lease.epoch,
                extra={"action": "superseded"},
            )

    async def run(self, stop: Stop) -> None:
        """Until the end is asked for.

        Raises:
            Exception: a loop of the core ended by a defect.
        """
        try:
            while not stop.requested:
                if await self._either(stop, self._lease.wait_held()):
                    await self._term(stop)
        finally:
            await self._core.follow()

    async def _term(self, stop: Stop) -> None:
        """One leadership, from taking over to letting go."""
        try:
            await self._core.lead()
        except Unavailable as error:
            log.warning("ResourceManager cannot load its records: %s", error, extra={"action": "load_failed"})
            await self._core.follow()
            await self._clock.sleep(_RETRY_SECONDS)
            return
        while self._lease.held and not stop.requested:
            if (defect := self._core.broken()) is not None:
                raise defect
            if self._step_down:
                self._step_down = False
                await self._lease.release()
                break
            await self._either(stop, self._clock.sleep(_LOOK_SECONDS))
        await self._core.follow()

    @staticmethod
    async def _either(stop: Stop, other: object) -> bool:
        """Whether ``other`` came before the end was asked for."""
        waits = [asyncio.ensure_future(other), asyncio.ensure_future(stop.wait())]  # type: ignore[call-overload]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return not stop.requested
