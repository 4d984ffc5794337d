"""Time as a collaborator: whatever waits or measures takes a Clock, so that tests own the time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two readings and a wait. Deadlines inside a process use ``monotonic``; ``now`` is for the wire and people."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin; never goes back."""
        ...

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; a cancelled wait raises CancelledError as asyncio's does."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def wire_time(moment: datetime) -> str:
    """RFC 3339 with milliseconds and ``Z``, the form of every time that we send."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
