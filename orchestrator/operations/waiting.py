"""Waiting for a wake-up or a time, whichever is first, by a clock that tests own."""

from __future__ import annotations

import asyncio

from secbeat.clock import Clock


async def wait(event: asyncio.Event, clock: Clock, seconds: float | None) -> bool:
    """Wait for ``event``, at most ``seconds`` (None: for ever); True if it came. The event is cleared."""
    if event.is_set() or seconds is None:
        await event.wait()
        event.clear()
        return True
    sleeper = asyncio.ensure_future(clock.sleep(max(seconds, 0.0)))
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((sleeper, waiter), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sleeper, waiter):
            task.cancel()
        await asyncio.gather(sleeper, waiter, return_exceptions=True)
    came = event.is_set()
    event.clear()
    return came
