"""The blocklist follows the orchestrator's: the whole list before the node enters rotation, then differences.

A notice that leads from a version that the node has seen is applied as it is; one that begins later shows that
something was missed, and the node fetches. What is older than the node's version is a repetition.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from node.dataplane import DataPlane
from node.dataplane.blocklist import Blocklist, Place, place
from node.registration import Orchestrator, Unreachable
from node.waiting import wait_for
from secbeat.clock import Clock
from secbeat.wire.rules import BlocklistNotice, SnapshotFrame

log = logging.getLogger("rules")

_SWEEP = 5.0
_POLL = 5.0  # for a node in the original's form, which nobody tells
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0
_TURN = 0.002  # seconds of work after which requests get their turn


class RulesFollower:
    """Keeps the data plane's blocklist at the orchestrator's version.

    Args:
        token: the node's management token, None without a join.
        on_complete: called once, when the first complete list is in force.
    """

    def __init__(
        self,
        plane: DataPlane,
        clock: Clock,
        *,
        source: Callable[[], Orchestrator],
        token: Callable[[], str | None],
        on_complete: Callable[[], None] = lambda: None,
    ) -> None:
        self._plane, self._clock, self._source, self._token = plane, clock, source, token
        self._on_complete = on_complete
        self._list = self._empty()
        self._wanted, self._ready = asyncio.Event(), asyncio.Event()
        self._told: list[BlocklistNotice] = []
        self._fetching = False

    @property
    def version(self) -> int:
        """The version in force; 0 before the first."""
        return self._list.version

    @property
    def complete(self) -> bool:
        """Whether a complete list has been in force."""
        return self._ready.is_set()

    async def ready(self) -> None:
        """Wait for the first complete list."""
        await self._ready.wait()

    def refresh(self) -> None:
        """Fetch soon."""
        self._wanted.set()

    def notice(self, notice: BlocklistNotice) -> None:
        """There is another version."""
        if notice.since is None and notice.version == self.version:
            return
        if notice.since is None or not self.complete or self._fetching or notice.since > self.version:
            # What arrives during a fetch may be newer than what is fetched: look again afterwards.
            if notice.version != self.version or self._fetching:
                self.refresh()
            return
        if notice.version > self.version:
            try:
                self._follow(notice)
            except ValueError as error:
                log.warning("A notice is unusable: %s", error, extra={"action": "rules_refused"})
                self.refresh()

    async def run(self) -> None:
        """Fetch when asked to, free what has ended; for ever. A failed fetch is tried again."""
        wait, due = _FIRST_WAIT, _SWEEP
        while True:
            if await wait_for(self._wanted, self._clock, due):
                self._wanted.clear()
                if await self._fetch():
                    wait = _FIRST_WAIT
                else:
                    await self._clock.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                    wait = min(wait * 2, _LONGEST_WAIT)
                    self.refresh()
            elif self._token() is None:
                self.refresh()
            due = _POLL if self._token() is None else _SWEEP
            for _ in self._list.sweep():
                await asyncio.sleep(0)

    async def _fetch(self) -> bool:
        self._fetching = True
        try:
            since = self.version if self.complete else None
            snapshot = await self._source().rules(since, token=self._token())
            await self._apply(snapshot)
        except (Unreachable, ValueError) as error:
            if self.complete:
                log.warning(
                    "The blocklist stays at version %d: %s", self.version, error, extra={"action": "rules_wait"}
                )
            else:
                log.warning(
                    "Not in rotation yet: the blocklist cannot be read: %s", error, extra={"action": "rules_wait"}
                )
            return False
        finally:
            self._fetching = False
        return True

    async def _apply(self, snapshot: SnapshotFrame | None) -> None:
        """Put a snapshot in force; None: this orchestrator has no blocklist.

        Raises:
            ValueError: unusable; nothing has changed.
        """
        if snapshot is None:
            snapshot = SnapshotFrame(version=self.version, complete=not self.complete, blocked=[])
        if snapshot.complete:
            self._list = await self._built(snapshot)
            self._plane.set_blocklist(self._list)
            log.info("Blocklist version %d, %d entries", self.version, self._list.size, extra={"action": "rules"})
        elif snapshot.version > self.version:
            self._follow(snapshot)
        if not self._ready.is_set():
            self._ready.set()
            self._on_complete()

    async def _built(self, snapshot: SnapshotFrame) -> Blocklist:
        built = self._empty(snapshot.version)
        since = time.perf_counter()
        for rule in snapshot.blocked:
            built.put(place(rule.ip), rule.expires_at.timestamp())
            if time.perf_counter() - since > _TURN:
                await asyncio.sleep(0)
                since = time.perf_counter()
        return built

    def _follow(self, difference: BlocklistNotice | SnapshotFrame) -> None:
        """Apply a difference in one go. Raises ValueError: unusable; nothing has changed."""
        gone: list[Place] = [place(entry) for entry in difference.removed]
        came = [(place(rule.ip), rule.expires_at.timestamp()) for rule in difference.blocked]
        for where in gone:
            self._list.discard(where)
        for where, end in came:
            self._list.put(where, end)
        self._list.version = difference.version
        self._plane.set_blocklist(self._list)
        log.info("Blocklist version %d, %d entries", self.version, self._list.size, extra={"action": "rules"})

    def _empty(self, version: int = 0) -> Blocklist:
        return Blocklist(version, now=lambda: self._clock.now().timestamp())
