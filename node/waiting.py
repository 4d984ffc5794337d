"""Waiting for an event or for time to pass, whichever comes first."""

from __future__ import annotations

import asyncio

from secbeat.clock import Clock


async def wait_for(event: asyncio.Event, clock: Clock, seconds: float | None) -> bool:
    """Wait until ``event`` is set, at most ``seconds`` (None: for ever); whether it is set.

    Time is the clock's, so that a test owns it; ``asyncio.timeout`` would follow the event loop.
    """
    if event.is_set() or seconds is None:
        await event.wait()
        return True
    waits = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(clock.sleep(max(0.0, seconds)))}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return event.is_set()
