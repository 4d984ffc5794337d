"""The audit: who asked for which change, done or refused, with what it was before and after.

An event stands in memory at once and in the ledger soon after; a store that does not answer delays the ledger and
never the request. What could not be written yet is kept, up to a limit, and counted when it is lost.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, Literal, NamedTuple

from aiohttp import web

from secbeat.api.requests import change_of
from secbeat.auth import Principal
from secbeat.clock import Clock, SystemClock
from secbeat.ids import check_pool, new_op_id
from secbeat.service import Stop
from secbeat.store import Ledger, Unavailable
from secbeat.wire.events import AuditEvent

log = logging.getLogger("audit")

KIND = "audit"
PROVISIONERS_KIND = "audit_provisioner"
NO_POOL = "_"
_RETRY_SECONDS = 5.0
_MAX_WHAT = 500
_AT_ONCE = 64  # a thousand registrations a second leave as many events


class _Unwritten(NamedTuple):
    pool: str
    record: bytes


class Audit:
    """The audit of one service.

    Args:
        service: names it in every event. Each writes a kind of its own in the ledger, so that a provisioner whose
            login was stolen cannot forge what the orchestrator did; the orchestrator reads both.
        ledger: where events are kept; None: in memory only.
        kept: so many of the newest events stay in memory.
        waiting: so many events wait for the ledger before the oldest is lost.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        ledger: Ledger | None = None,
        service: Literal["orchestrator", "provisioner"] = "orchestrator",
        kept: int = 2000,
        waiting: int = 10_000,
    ) -> None:
        self._service = service
        self._kind = KIND if service == "orchestrator" else PROVISIONERS_KIND
        self._clock = clock or SystemClock()
        self._ledger = ledger
        self._kept: deque[AuditEvent] = deque(maxlen=kept)
        self._waiting: deque[_Unwritten] = deque(maxlen=waiting)
        self._added = asyncio.Event()
        self._writing = asyncio.Lock()
        self.lost = 0

    async def on_request(self, request: web.Request, caller: Principal, status: int) -> None:
        """The hook of ``secbeat.api.build_app``."""
        before, after = change_of(request)
        self.add(
            AuditEvent(
                at=self._clock.now(),
                who=caller.name[:128],
                scope=caller.scope,
                peer=(request.remote or "")[:64],
                what=f"{request.method} {request.path}"[:_MAX_WHAT],
                status=status,
                before=before,
                after=after,
            ),
            pool=_pool_of(request),
        )

    def add(self, event: AuditEvent, *, pool: str = NO_POOL) -> None:
        """Record an event; one without an id of its own gets one."""
        if not event.event_id:
            event = event.model_copy(update={"event_id": new_op_id(), "service": self._service})
        self._kept.append(event)
        log.info("%s: %s -> %s", event.who, event.what, event.status, extra={"action": "audit", "peer": event.peer})
        if self._ledger is None:
            return
        if len(self._waiting) == self._waiting.maxlen:
            self.lost += 1
        self._waiting.append(_Unwritten(pool, event.encode()))
        self._added.set()

    async def newest(self, count: int) -> list[AuditEvent]:
        """The newest events, oldest of them first: the ledger's, which outlives a restart, else those in memory."""
        if self._ledger is not None:
            try:
                await self.flush()
                return await self._read(count)
            except Unavailable as error:
                log.warning("The audit is read from memory: %s", error, extra={"action": "audit_memory"})
        return list(self._kept)[-count:]

    async def _read(self, count: int) -> list[AuditEvent]:
        assert self._ledger is not None  # noqa: S101 - the caller has looked
        ours = [AuditEvent.decode(record) async for record in self._ledger.read(self._kind, newest=count)]
        if self._kind == PROVISIONERS_KIND:
            return ours
        theirs = [AuditEvent.decode(record) async for record in self._ledger.read(PROVISIONERS_KIND, newest=count)]
        # Whatever such a record says of itself, it came from a provisioner.
        marked = [event.model_copy(update={"service": "provisioner"}) for event in theirs]
        return sorted([*ours, *marked], key=lambda event: event.at)[-count:]

    async def flush(self) -> None:
        """Write what waits.

        Raises:
            Unavailable: the ledger did not confirm; what was not written goes on waiting.
        """
        async with self._writing:
            while self._waiting:
                await self._write(1)  # alone: after an outage nothing overtakes the event that met it
                await self._write(_AT_ONCE)

    async def _write(self, count: int) -> None:
        """Append the oldest ``count``, all on their way at once; those that fail go on waiting before all others."""
        assert self._ledger is not None  # noqa: S101 - nothing waits without one
        oldest = list(itertools.islice(self._waiting, count))
        appends = (self._ledger.append(self._kind, one.pool, one.record) for one in oldest)
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        errors = [(one, outcome) for one, outcome in zip(oldest, outcomes, strict=True) if outcome is not None]
        # The deque may have lost its oldest meanwhile.
        taken = {id(one) for one in oldest}
        while self._waiting and id(self._waiting[0]) in taken:
            self._waiting.popleft()
        for one, _ in reversed(errors):
            if len(self._waiting) == self._waiting.maxlen:
                self.lost += 1
            else:
                self._waiting.appendleft(one)
        if errors:
            raise errors[0][1]

    async def run(self, stop: Stop) -> None:
        """Until the end: write events as they come; a last attempt at the end."""
        while not stop.requested:
            self._added.clear()
            try:
                await self.flush()
                await self._either(stop, self._added.wait())
            except Unavailable as error:
                log.warning("%d audit events wait: %s", len(self._waiting), error, extra={"action": "audit_wait"})
                await self._either(stop, self._clock.sleep(_RETRY_SECONDS))
        try:
            await self.flush()
        except Unavailable:
            log.exception("%d audit events were not kept", len(self._waiting), extra={"action": "audit_lost"})

    @staticmethod
    async def _either(stop: Stop, other: Coroutine[Any, Any, Any]) -> None:
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(other)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _pool_of(request: web.Request) -> str:
    """The pool in the path, if it may be part of a subject."""
    if not request.path.startswith("/api/v1/pools/"):
        return NO_POOL
    name = request.match_info.get("name", NO_POOL)
    try:
        return check_pool(name)
    except ValueError:
        return NO_POOL
