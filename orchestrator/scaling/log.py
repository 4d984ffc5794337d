"""The decisions in memory, and which of them the ledger keeps."""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime, timedelta

from secbeat.store import Ledger, Unavailable
from secbeat.wire.decisions import DecisionRecord

REFRESH = timedelta(minutes=10)
_KEPT = 500  # decisions in memory, of all pools
_QUEUED = 2000  # decisions that wait for the ledger
_log = logging.getLogger(__name__)


class DecisionLog:
    """Equal decisions in a row are one entry with a count; what acts is always an entry of its own.

    The ledger gets a decision when direction, size, code or the clamps' codes change, and at least every ten minutes.
    """

    def __init__(self, ledger: Ledger | None = None, *, kept: int = _KEPT) -> None:
        self._ledger = ledger
        self._kept: deque[DecisionRecord] = deque(maxlen=kept)
        self._last: dict[str, DecisionRecord] = {}
        self._written: dict[str, datetime] = {}
        self._queue: deque[DecisionRecord] = deque(maxlen=_QUEUED)
        self.lost = 0
        """Decisions that the ledger never got because it was away for too long."""

    def add(self, decision: DecisionRecord) -> DecisionRecord:
        """Note a decision; returns it as noted, with ``equal_since`` and ``equal_count``."""
        before = self._last.get(decision.pool)
        if before is not None and _equal(before, decision):
            since = before.equal_since or before.at
            decision = decision.model_copy(update={"equal_since": since, "equal_count": before.equal_count + 1})
            self._replace(before, decision)
            due = decision.at - self._written[decision.pool] >= REFRESH
        else:
            self._kept.append(decision)
            due = True
        self._last[decision.pool] = decision
        if due:
            self._enqueue(decision)
        return decision

    def last(self, pool: str) -> DecisionRecord | None:
        """The decision in force."""
        return self._last.get(pool)

    def newest(self, pool: str | None = None, n: int = 100) -> list[DecisionRecord]:
        """The newest entries, oldest of them first."""
        found = [entry for entry in self._kept if pool is None or entry.pool == pool]
        return found[-n:] if n > 0 else []

    def forget(self, pool: str) -> None:
        """The pool no longer exists: it has no decision in force."""
        self._last.pop(pool, None)
        self._written.pop(pool, None)

    @property
    def waiting(self) -> int:
        """Decisions that the ledger does not have yet."""
        return len(self._queue)

    async def flush(self) -> int:
        """Give the ledger what is due; returns how many it took. What it does not confirm waits for the next call."""
        if self._ledger is None:
            self._queue.clear()
            return 0
        taken = 0
        while self._queue:
            entry = self._queue[0]
            try:
                await self._ledger.append("decision", entry.pool, entry.encode())
            except Unavailable as error:
                _log.warning("the ledger is not available, %d decisions wait: %s", len(self._queue), error)
                break
            if self._queue and self._queue[0] is entry:
                self._queue.popleft()
            taken += 1
        return taken

    def _enqueue(self, decision: DecisionRecord) -> None:
        if len(self._queue) == self._queue.maxlen:
            self.lost += 1
        self._queue.append(decision)
        self._written[decision.pool] = decision.at

    def _replace(self, before: DecisionRecord, after: DecisionRecord) -> None:
        for index in range(len(self._kept) - 1, -1, -1):
            if self._kept[index] is before:
                self._kept[index] = after
                return
        self._kept.append(after)


def _equal(one: DecisionRecord, other: DecisionRecord) -> bool:
    if other.direction != "hold" and not other.would:
        return False
    return _essence(one) == _essence(other)


def _essence(decision: DecisionRecord) -> tuple[object, ...]:
    codes = tuple(clamp.code for clamp in decision.clamps)
    return (decision.direction, decision.size, decision.code, codes, decision.would)
