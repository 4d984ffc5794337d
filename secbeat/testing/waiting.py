"""Waiting for real processes and connections in tests: by polling, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 20.0, *, every: float = 0.02) -> None:
    """Return as soon as ``condition()`` is true.

    Raises:
        TimeoutError: it was not within ``seconds``.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is another process's
            await asyncio.sleep(every)
