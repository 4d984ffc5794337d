"""A work queue in memory: redelivery, delays and deduplication as the real one has them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from secbeat.clock import Clock, SystemClock

ACK_WAIT_SECONDS = 30.0
DEDUP_SECONDS = 600.0


@dataclass
class _Message:
    op_id: str
    visible_at: float
    deliveries: int = 0
    done: bool = False


class MemoryWork:
    """One delivery; a delivery that was overtaken by a later one changes nothing."""

    def __init__(self, queue: MemoryQueue, message: _Message) -> None:
        self.op_id = message.op_id
        self._deliveries = message.deliveries
        self._queue, self._message = queue, message

    @property
    def deliveries(self) -> int:
        return self._deliveries

    async def done(self) -> None:
        self._queue.finish(self._message)

    async def extend(self) -> None:
        self._queue.show_again(self._message, self.deliveries, ACK_WAIT_SECONDS)

    async def again(self, delay_seconds: float) -> None:
        self._queue.show_again(self._message, self.deliveries, delay_seconds)


class MemoryQueue:
    """A WorkQueue. ``next_error`` is raised by the next call, once; ``waiting`` lists what is not done."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._messages: list[_Message] = []
        self._seen: dict[str, float] = {}
        self._changed = asyncio.Event()
        self.next_error: Exception | None = None

    @property
    def waiting(self) -> list[str]:
        """The op_ids that are enqueued or delivered, and not done."""
        return [message.op_id for message in self._messages]

    async def put(self, op_id: str) -> None:
        self._fail()
        now = self._clock.monotonic()
        seen = self._seen.get(op_id)
        if seen is not None and now - seen < DEDUP_SECONDS:
            return
        self._seen[op_id] = now
        self._messages.append(_Message(op_id, now))
        self._changed.set()

    async def take(self, timeout_seconds: float) -> MemoryWork | None:
        self._fail()
        deadline = self._clock.monotonic() + timeout_seconds
        while True:
            now = self._clock.monotonic()
            for message in self._messages:
                if message.visible_at <= now:
                    message.deliveries += 1
                    message.visible_at = now + ACK_WAIT_SECONDS
                    return MemoryWork(self, message)
            if now >= deadline:
                return None
            self._changed.clear()
            await self._wait(min([deadline, *(message.visible_at for message in self._messages)]) - now)

    def redeliver(self) -> None:
        """Show everything that is not done again, as after the death of its consumers."""
        for message in self._messages:
            message.visible_at = self._clock.monotonic()
        self._changed.set()

    def finish(self, message: _Message) -> None:
        """Forget a message."""
        if message in self._messages:
            self._messages.remove(message)

    def show_again(self, message: _Message, delivery: int, delay_seconds: float) -> None:
        """Deliver a message again after a delay, unless it has been delivered since."""
        if message.deliveries == delivery:
            message.visible_at = self._clock.monotonic() + delay_seconds
            self._changed.set()

    def _fail(self) -> None:
        error, self.next_error = self.next_error, None
        if error is not None:
            raise error

    async def _wait(self, seconds: float) -> None:
        tasks = {asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(self._clock.sleep(seconds))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
