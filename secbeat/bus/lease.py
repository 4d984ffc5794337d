"""Leadership: at most one process acts, and the store refuses all others.

Two keys of the bucket ``state``:

- ``lease`` lives 15 s and is renewed every 3 s; while it exists nobody else may take over.
- ``leader`` says who leads, and holds the epoch. It is written only when leadership changes hands, in one batch with
  ``lease``, and never expires: the epoch survives every pause, and its revision is what fenced writes are held
  against (``secbeat.bus.bucket``).

A holder stops believing in its lease 10 s (two thirds) after it *sent* the last renewal that was confirmed, on its own
monotonic clock: before anyone else can have it, as long as clocks run at about the same rate.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
from dataclasses import dataclass
from typing import Any

from secbeat.bus.bucket import LEASE_KEY, Store
from secbeat.bus.group import EXPECTED
from secbeat.clock import Clock, SystemClock, wire_time
from secbeat.service import Stop
from secbeat.store import Conflict, Unavailable
from secbeat.subjects import LEADER_KEY

log = logging.getLogger("lease")


@dataclass(frozen=True)
class LeaseTiming:
    """Seconds. ``ttl`` must outlast NATS's own fail-over (4 to 7 s measured) and two renewals."""

    ttl: int = 15
    renew: float = 3.0
    retry: float = 1.0
    call: float = 2.0

    @property
    def believe(self) -> float:
        """How long after sending it a confirmed renewal is trusted."""
        return self.ttl * 2 / 3


class LeaseKeeper:
    """A Lease that is taken, renewed and given up.

    Args:
        store: of the bucket ``state``.
        holder: names one process at a time, e.g. the instance whose state directory is locked. The next process of the
            same name takes the lease over at once instead of waiting for it to run out; fencing makes that safe.
    """

    def __init__(
        self, store: Store, holder: str, *, clock: Clock | None = None, timing: LeaseTiming | None = None
    ) -> None:
        self.holder = holder
        self._store = store
        self._clock = clock or SystemClock()
        self._timing = timing or LeaseTiming()
        self._instance = secrets.token_hex(8)
        self._revision = 0
        self._until = float("-inf")
        self._epoch = 0
        self._highest = 0
        self._term = 0
        self._fresh = True
        self._changed = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether this process may act now."""
        return self._clock.monotonic() < self._until

    @property
    def epoch(self) -> int:
        """Of our present leadership, or of the last one; 0 before the first."""
        return self._epoch

    @property
    def term(self) -> int:
        """The revision of ``leader`` that fenced writes name."""
        return self._term

    def saw(self, epoch: int) -> None:
        """Tell of an epoch that a receiver has seen: the next one of ours is higher."""
        self._highest = max(self._highest, epoch)

    async def wait_held(self) -> None:
        """Until the lease is held."""
        while not self.held:
            self._changed.clear()
            await self._changed.wait()

    async def wait_lost(self) -> None:
        """Until the lease is not held, because it was lost, given up or not renewed in time."""
        while self.held:
            await self._clock.sleep(min(0.2, max(0.0, self._until - self._clock.monotonic())))

    async def run(self, stop: Stop) -> None:
        """Try to lead, and go on leading, until ``stop``; then give the lease up."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.requested:
                pause = await self._turn()
                nap = asyncio.ensure_future(self._clock.sleep(pause))
                await asyncio.wait({nap, stopped}, return_when=asyncio.FIRST_COMPLETED)
                nap.cancel()
        finally:
            stopped.cancel()
            await self.release()

    async def release(self) -> None:
        """Give the lease up in order, so that another takes over within two seconds."""
        revision, self._revision, self._term, self._until = self._revision, 0, 0, float("-inf")
        if not revision:
            return
        try:
            await self._store.remove(LEASE_KEY, {EXPECTED: str(revision)})
            log.info("Leadership given up", extra={"action": "lease_released", "epoch": self._epoch})
        except (Conflict, Unavailable) as error:
            log.warning("The lease could not be given up and will run out: %s", error, extra={"action": "lease_left"})

    async def _turn(self) -> float:
        """One attempt to take or renew; the pause until the next."""
        try:
            if self._revision:
                await self._renew()
            else:
                await self._take()
            if self.held:
                return self._timing.renew
        except Conflict:
            self._lose("another process has it")
        except Unavailable as error:
            # Not known to be lost: it is held until its time is up.
            if self._term and not self.held:
                self._lose(f"it could not be renewed in time: {error}")
        return self._timing.retry * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    async def _renew(self) -> None:
        sent = self._clock.monotonic()
        try:
            self._revision = await self._store.write(
                LEASE_KEY, self._value(self._epoch), self._conditions(self._revision)
            )
        except Conflict:
            # Perhaps our own renewal, whose confirmation got lost.
            value, revision = await self._store.last(LEASE_KEY)
            if _decode(value).get("instance") != self._instance:
                self._revision = 0
                raise
            sent = self._clock.monotonic()
            self._revision = await self._store.write(LEASE_KEY, self._value(self._epoch), self._conditions(revision))
        self._hold(sent)

    async def _take(self) -> None:
        value, revision = await self._store.last(LEASE_KEY)
        found = _decode(value)
        if found.get("instance") == self._instance:
            # Our own attempt, whose confirmation got lost; a renewal proves that it is still there.
            self._revision = revision
            await self._adopt()
            return
        if value and not (self._fresh and found.get("holder") == self.holder):
            self._fresh = False
            return
        self._fresh = False
        stored, term = await self._store.last(LEADER_KEY)
        self._highest = max(self._highest, _epoch_in(stored))
        epoch = self._highest + 1
        leader = {"v": 1, "holder": self.holder, "epoch": epoch, "since": wire_time(self._clock.now())}
        sent = self._clock.monotonic()
        self._revision, self._term = await self._store.batch(
            (LEASE_KEY, self._value(epoch), self._conditions(revision)),
            (LEADER_KEY, json.dumps(leader).encode(), {EXPECTED: str(term)}),
        )
        self._epoch = self._highest = epoch
        self._hold(sent)
        log.info("Leads from now on", extra={"action": "lease_taken", "epoch": epoch, "holder": self.holder})

    async def _adopt(self) -> None:
        stored, self._term = await self._store.last(LEADER_KEY)
        self._epoch = _epoch_in(stored)
        self._highest = max(self._highest, self._epoch)
        await self._renew()

    def _hold(self, sent: float) -> None:
        self._until = sent + self._timing.believe
        self._changed.set()

    def _lose(self, why: str) -> None:
        self._until, self._revision = float("-inf"), 0
        if self._term:
            log.warning("Leadership lost: %s", why, extra={"action": "lease_lost", "epoch": self._epoch})
        self._term = 0

    def _value(self, epoch: int) -> bytes:
        return json.dumps({"v": 1, "holder": self.holder, "instance": self._instance, "epoch": epoch}).encode()

    def _conditions(self, revision: int) -> dict[str, str]:
        return {EXPECTED: str(revision), "Nats-TTL": str(self._timing.ttl)}


def _epoch_in(leader: bytes) -> int:
    epoch = _decode(leader).get("epoch", 0)
    return epoch if isinstance(epoch, int) else 0


def _decode(value: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(value) if value else {}
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
