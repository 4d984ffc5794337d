"""Events: what happened, in one ordered stream that people, dashboards and other programs follow.

One hub per orchestrator. It keeps the newest events in memory, hands each to whoever follows (the SSE route), and
passes it on to NATS through a callback. Publishing is synchronous and cheap: the parts that publish are the parts
that act, and must never wait for those who watch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from secbeat import subjects
from secbeat.clock import Clock, SystemClock
from secbeat.wire.events import Event

log = logging.getLogger("events")

KEPT = 10_000
_MAX_SENTENCE = 2000


class Encoded(NamedTuple):
    """An event as it is kept: its number, its kind and pool, and its JSON, encoded once for all who read it."""

    seq: int
    kind: str
    payload: bytes
    pool: str | None = None


class Feed:
    """What one follower has not read yet. A follower that falls ``limit`` events behind is cut off, not waited for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Encoded] = deque()
        self._woken = asyncio.Event()
        self.ended = False

    def offer(self, event: Encoded) -> bool:
        """Add an event; False if the follower is too slow and has been cut off."""
        if len(self._waiting) >= self._limit:
            self.end()
            return False
        self._waiting.append(event)
        self._woken.set()
        return True

    def end(self) -> None:
        """No more events; the follower still reads what waits, then ends."""
        self.ended = True
        self._woken.set()

    async def take(self) -> list[Encoded]:
        """Wait for events and return all that wait, oldest first; empty when the feed has ended."""
        while not self._waiting and not self.ended:
            self._woken.clear()
            await self._woken.wait()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class EventHub:
    """The stream.

    Numbers rise across restarts as well: they start from the wall clock in milliseconds, so that a client which
    resumes with a number of the process before gets everything of this one.

    Args:
        clock: the time of each event.
        kept: so many of the newest events stay readable.
        forward: called with subject and payload for each event; settable later; must not block or raise.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        kept: int = KEPT,
        forward: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._kept: deque[Encoded] = deque(maxlen=kept)
        self._feeds: set[Feed] = set()
        self.first_seq = int(self._clock.now().timestamp() * 1000)
        self.last_seq = self.first_seq - 1
        self.dropped_feeds = 0
        self.forward = forward

    def publish(
        self,
        kind: str,
        sentence: str,
        *,
        pool: str | None = None,
        node_id: str | None = None,
        op_id: str | None = None,
        **facts: Any,
    ) -> None:
        """Tell that something happened.

        Args:
            kind: dotted lower-case words, e.g. ``node.joined``; part of a NATS subject.
            sentence: for people; cut at 2000 characters.
            facts: JSON-ready values; others are sent as their text.

        Raises:
            pydantic.ValidationError: ``kind`` is not of that form (a defect of the caller).
        """
        self.last_seq += 1
        event = Event(
            seq=self.last_seq,
            at=self._clock.now(),
            kind=kind,
            sentence=sentence[:_MAX_SENTENCE],
            pool=pool,
            node_id=node_id,
            op_id=op_id,
            facts=facts,
        )
        encoded = Encoded(event.seq, kind, event.model_dump_json(fallback=str).encode(), pool)
        self._kept.append(encoded)
        for feed in [feed for feed in self._feeds if not feed.offer(encoded)]:
            self._feeds.discard(feed)
            self.dropped_feeds += 1
        if self.forward is not None:
            try:
                self.forward(subjects.event(kind), encoded.payload)
            except Exception:
                log.exception("Event %s was not forwarded", kind, extra={"action": "event_forward_failed"})

    def since(self, seq: int) -> tuple[list[Encoded], bool]:
        """The kept events after ``seq``, oldest first, and whether some after it are no longer kept."""
        found = [event for event in self._kept if event.seq > seq]
        oldest = self._kept[0].seq if self._kept else self.last_seq + 1
        return found, seq + 1 < oldest

    def newest(self, count: int) -> list[Encoded]:
        """The newest ``count`` events, oldest of them first."""
        return list(self._kept)[-count:] if count > 0 else []

    @contextmanager
    def follow(self, *, limit: int = 1000) -> Iterator[Feed]:
        """A feed of the events published from now on, for the length of the block."""
        feed = Feed(limit)
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)

    @property
    def followers(self) -> int:
        return len(self._feeds)

    def close(self) -> None:
        """End all feeds, so that open streams finish at shutdown."""
        for feed in self._feeds:
            feed.end()
        self._feeds.clear()
