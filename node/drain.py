"""The drain: how a node leaves without losing a request.

    serving ──begin──▶ propagating ──▶ closing ──▶ done
       ▲                   │
       └──────resume───────┘

*Propagating*: readiness is 503, every response says ``Connection: close``, everything is still served; load balancers
notice. *Closing*: no new connections; what is connected finishes, until the deadline. Only ``done`` ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from node.dataplane import DataPlane
from node.waiting import wait_for
from secbeat.auth import write_secret
from secbeat.clock import Clock, wire_time
from secbeat.errors import RefusedError, SecbeatError

log = logging.getLogger("drain")

Phase = Literal["serving", "propagating", "closing", "done"]
# Of the whole grace period, at most so much is spent on waiting for load balancers.
_PROPAGATION_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class DrainRecord:
    """What is on disk while a drain goes on, so that a person, or the next start, sees that one was ordered."""

    v: int
    boot_id: str
    since: str
    deadline: str
    reason: str
    ordered: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: ``aborted`` requests were cut at the deadline."""

    aborted: int
    seconds: float


class Drain:
    """One node's drain.

    Args:
        longest: seconds; a longer grace period is cut to it.
        propagation: seconds that load balancers need to notice.
        on_change: called at once when the node starts or stops draining.
    """

    def __init__(
        self,
        plane: DataPlane,
        clock: Clock,
        *,
        boot_id: str,
        record_file: Path,
        longest: float,
        propagation: float,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._plane, self._clock = plane, clock
        self._boot_id, self._file = boot_id, record_file
        self._longest, self._propagation = longest, propagation
        self._on_change = on_change
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._began = 0.0
        self._grace = 0.0
        self.phase: Phase = "serving"
        self.reason = ""

    @property
    def draining(self) -> bool:
        """Whether the node is on its way out."""
        return self.phase != "serving"

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; 0 when hurried."""
        return 0.0 if self._hurry.is_set() else max(0.0, self._began + self._grace - self._clock.monotonic())

    def configure(self, *, longest: float, propagation: float) -> None:
        """New limits; a drain that goes on keeps its deadline, but propagates as long as the new limit says."""
        self._longest, self._propagation = longest, propagation
        self._changed.set()

    def begin(self, *, reason: str, seconds: float | None = None, ordered: bool = True) -> float:
        """Start to drain; while one goes on, nothing changes.

        Args:
            reason: for the log and the record.
            seconds: the grace period asked for; None for the longest.
            ordered: by a command; such a drain goes on when the process is started again before its deadline.

        Returns:
            The grace period in force, in seconds: the same on every repetition.
        """
        if self.draining:
            return self._grace
        self._grace = self._longest if seconds is None else min(seconds, self._longest)
        self._began = self._clock.monotonic()
        self.phase, self.reason = "propagating", reason
        self._plane.begin_drain()
        self._remember(ordered=ordered)
        log.info("Draining for at most %g s: %s", self._grace, reason, extra={"action": "drain_begin"})
        self._wanted.set()
        self._notify()
        return self._grace

    def resume(self, reason: str) -> None:
        """Cancel the drain; without one, nothing happens.

        Raises:
            RefusedError: the listener has closed (DRAIN_TOO_LATE).
        """
        if not self.draining:
            return
        if self.phase != "propagating":
            raise RefusedError("DRAIN_TOO_LATE", why="the node has stopped to accept connections")
        self.phase = "serving"
        self._plane.cancel_drain()
        self._forget()
        log.info("Drain cancelled: %s", reason or "no reason given", extra={"action": "drain_resume"})
        self._wanted.clear()
        self._notify()

    def hurry(self) -> None:
        """Skip all waiting: the deadline is now."""
        self._hurry.set()
        self._changed.set()

    async def run(self) -> Outcome:
        """Wait for a drain, carry it out; returns when everything is served or the deadline has passed."""
        while not await self._propagate():
            pass
        self.phase = "closing"
        await self._plane.close_listener()
        log.info("Listener closed, %d in flight", self._plane.in_flight, extra={"action": "drain_closing"})
        aborted = await self._settle()
        self.phase = "done"
        self._forget()
        outcome = Outcome(aborted, self._clock.monotonic() - self._began)
        level = logging.WARNING if aborted else logging.INFO
        log.log(level, "Drained in %.1f s, %d requests cut off", outcome.seconds, aborted, extra={"action": "drained"})
        return outcome

    async def _propagate(self) -> bool:
        """Wait for a drain and for load balancers to notice it; False when it was cancelled meanwhile."""
        await self._wanted.wait()
        while self.phase == "propagating" and not self._hurry.is_set() and (left := self._left_to_notice()) > 0:
            self._changed.clear()
            await wait_for(self._changed, self._clock, left)
        return self.phase == "propagating"

    def _left_to_notice(self) -> float:
        wait = min(self._propagation, self._grace * _PROPAGATION_SHARE)
        return self._began + wait - self._clock.monotonic()

    async def _settle(self) -> int:
        work = asyncio.ensure_future(self._plane.settle(self.remaining))
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({work, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, hurried):
                task.cancel()
            await asyncio.gather(work, hurried, return_exceptions=True)
        return self._plane.in_flight

    def _notify(self) -> None:
        self._changed.set()
        self._on_change()

    # ----------------------------------------------------------------------------------------------------- on the disk

    def _remember(self, *, ordered: bool) -> None:
        now = self._clock.now()
        deadline = now + timedelta(seconds=self._grace)
        record = DrainRecord(1, self._boot_id, wire_time(now), wire_time(deadline), self.reason, ordered)
        try:
            write_secret(self._file, json.dumps(asdict(record)) + "\n")
        except SecbeatError as error:
            # A full disk must not keep a node from leaving.
            log.warning("The drain is not on disk: %s", error.why, extra={"action": "drain_record"})

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)


def interrupted(record_file: Path, clock: Clock) -> tuple[float, str] | None:
    """An ordered drain that an earlier process did not finish: the seconds that are left, and its reason."""
    try:
        record = DrainRecord(**json.loads(record_file.read_text()))
        left = (datetime.fromisoformat(record.deadline) - clock.now()).total_seconds()
    except (OSError, ValueError, TypeError):
        return None
    return (left, record.reason) if record.ordered and left > 0 else None
