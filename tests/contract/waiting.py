"""Virtual time for what is decided, real time for what is on a socket: the one stands still while the other is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import aiohttp

from secbeat.testing import FakeClock, settle
from secbeat.testing.waiting import until

_REAL_SECONDS = 10.0


async def pass_time(
    clock: FakeClock,
    condition: Callable[[], Any],
    *,
    sessions: Callable[[], Iterable[aiohttp.ClientSession | None]],
    seconds: float,
    step: float,
) -> None:
    """Advance the clock until ``condition``, never while a request of one of ``sessions`` is under way.

    Raises:
        AssertionError: it did not come within so many virtual seconds.
    """
    passed = 0.0
    while True:
        await _quiet(sessions)
        if condition():
            return
        assert passed < seconds, f"not within {seconds:g} virtual seconds"
        await clock.advance(step)
        passed += step


async def _quiet(sessions: Callable[[], Iterable[aiohttp.ClientSession | None]]) -> None:
    """Until no request is under way; a server of the test's that never answers is not waited for long."""
    for _ in range(2):  # what an answer sets off may be the next request
        await settle()
        await asyncio.sleep(0.001)
        await settle()
        with suppress(TimeoutError):
            await until(lambda: not any(map(_busy, sessions())), _REAL_SECONDS, every=0.001)


def _busy(session: aiohttp.ClientSession | None) -> bool:
    return session is not None and session.connector is not None and bool(session.connector._acquired)
