"""The decisions in memory, every one of them, and which of them the ledger keeps."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import merge
from itertools import islice

from secbeat.store import Ledger, Unavailable
from secbeat.wire.decisions import DecisionRecord

REFRESH = timedelta(minutes=10)
KEPT = 100
"""So many of a pool's newest evaluations stay in memory."""
_QUEUED = 2000  # decisions that wait for the ledger
_log = logging.getLogger(__name__)


@dataclass
class _Pool:
    """One pool's evaluations.

    ``unwritten`` counts those of the present run of equal ones that no record in the ledger stands for yet.
    """

    kept: deque[DecisionRecord]
    written_at: datetime | None = None
    unwritten: int = 0
    last: DecisionRecord | None = field(default=None)


class DecisionLog:
    """Every evaluation is an entry; equal ones in a row know how many they are and since when.

    The ledger gets a decision when direction, size, code or the clamps' codes change, and at least every ten minutes.
    Each of its records says for how many evaluations it stands: a run of equal ones that ends before its ten minutes
    is closed by a record of its own, so that the counts of all records add up to the evaluations that were made.
    """

    def __init__(self, ledger: Ledger | None = None, *, kept: int = KEPT) -> None:
        self._ledger = ledger
        self._size = kept
        self._pools: dict[str, _Pool] = {}
        self._queue: deque[DecisionRecord] = deque(maxlen=_QUEUED)
        self.lost = 0
        """Decisions that the ledger never got because it was away for too long."""

    def add(self, decision: DecisionRecord) -> DecisionRecord:
        """Note a decision; returns it as noted, with ``equal_since`` and ``equal_count``."""
        pool = self._pools.get(decision.pool)
        if pool is None:
            pool = self._pools[decision.pool] = _Pool(deque(maxlen=self._size))
        before = pool.last
        same = before is not None and _equal(before, decision)
        if same and before is not None:
            since = before.equal_since or before.at
            decision = decision.model_copy(update={"equal_since": since, "equal_count": before.equal_count + 1})
        elif before is not None and pool.unwritten:
            self._write(pool, before)
        pool.kept.append(decision)
        pool.last = decision
        pool.unwritten += 1
        if not same or pool.written_at is None or decision.at - pool.written_at >= REFRESH:
            self._write(pool, decision)
        return decision

    def last(self, pool: str) -> DecisionRecord | None:
        """The decision in force."""
        found = self._pools.get(pool)
        return None if found is None else found.last

    def newest(self, pool: str | None = None, n: int = KEPT) -> list[DecisionRecord]:
        """The newest entries, of one pool or of all, oldest of them first."""
        if n <= 0:
            return []
        if pool is not None:
            found = self._pools.get(pool)
            return [] if found is None else list(found.kept)[-n:]
        newest = merge(*(reversed(one.kept) for one in self._pools.values()), key=lambda one: one.at, reverse=True)
        return list(islice(newest, n))[::-1]

    def at(self, pool: str, moment: datetime) -> DecisionRecord | None:
        """The decision in force at ``moment``, if memory reaches back so far."""
        found = self._pools.get(pool)
        if found is None or not found.kept or found.kept[0].at > moment:
            return None
        return next(one for one in reversed(found.kept) if one.at <= moment)

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

    def _write(self, pool: _Pool, decision: DecisionRecord) -> None:
        if len(self._queue) == self._queue.maxlen:
            self.lost += 1
        stands_for, pool.unwritten, pool.written_at = pool.unwritten, 0, decision.at
        self._queue.append(decision if stands_for == 1 else decision.model_copy(update={"stands_for": stands_for}))


def _equal(one: DecisionRecord, other: DecisionRecord) -> bool:
    if other.direction != "hold" and not other.would:
        return False
    return _essence(one) == _essence(other)


def _essence(decision: DecisionRecord) -> tuple[object, ...]:
    codes = tuple(clamp.code for clamp in decision.clamps)
    return (decision.direction, decision.size, decision.code, codes, decision.would)
