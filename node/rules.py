"""The blocklist follows the orchestrator's: fetched at the join and at every notice, expired by the node itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from node.dataplane import DataPlane
from node.dataplane.blocklist import Blocklist
from node.registration import Orchestrator, Unreachable
from node.waiting import wait_for
from secbeat.clock import Clock
from secbeat.wire.rules import RulesSnapshot

log = logging.getLogger("rules")

_EXPIRY_CHECK = 5.0


class RulesFollower:
    """Keeps the data plane's blocklist at the orchestrator's version."""

    def __init__(
        self, plane: DataPlane, clock: Clock, *, source: Callable[[], Orchestrator], token: Callable[[], str | None]
    ) -> None:
        self._plane, self._clock, self._source, self._token = plane, clock, source, token
        self._entries: dict[str, datetime] = {}
        self._wanted = asyncio.Event()
        self._complete = False
        self.version = 0

    def refresh(self) -> None:
        """Fetch soon."""
        self._wanted.set()

    def notice(self, version: int) -> None:
        """There is another version."""
        if version != self.version:
            self.refresh()

    async def run(self) -> None:
        """Fetch when asked to, drop what has expired; for ever. A failed fetch waits for the next notice."""
        while True:
            if await wait_for(self._wanted, self._clock, _EXPIRY_CHECK):
                self._wanted.clear()
                await self._fetch()
            await self._expire()

    async def _fetch(self) -> None:
        try:
            snapshot = await self._source().rules(self.version if self._complete else None, token=self._token())
        except Unreachable as error:
            log.warning("The blocklist stays at version %d: %s", self.version, error, extra={"action": "rules_wait"})
            return
        await self._apply(snapshot)

    async def _apply(self, snapshot: RulesSnapshot) -> None:
        entries = {} if snapshot.complete else dict(self._entries)
        for gone in snapshot.removed:
            entries.pop(gone, None)
        entries.update((rule.ip, rule.expires_at) for rule in snapshot.blocked)
        if await self._install(snapshot.version, entries):
            self._complete = True
            log.info("Blocklist version %d, %d entries", self.version, len(entries), extra={"action": "rules"})

    async def _expire(self) -> None:
        now = self._clock.now()
        live = {entry: end for entry, end in self._entries.items() if end > now}
        if len(live) != len(self._entries):
            await self._install(self.version, live)

    async def _install(self, version: int, entries: dict[str, datetime]) -> bool:
        try:
            # A hundred thousand entries take half a second to parse: not on the loop that serves requests.
            built = await asyncio.to_thread(Blocklist, version, list(entries))
        except ValueError as error:
            log.warning("Blocklist version %d is unusable: %s", version, error, extra={"action": "rules_refused"})
            return False
        self._plane.set_blocklist(built)
        self._entries, self.version = entries, version
        return True
