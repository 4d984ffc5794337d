"""Tells nodes what changed: ours by version and difference, the original's by its own commands.

The original's node ends a block by a timer of its own for every command that it got, and each timer lifts the block
whatever came later (secbeat-contracts 13, H8). So a block that was prolonged is sent again when an older timer has
run out, and a node that has just registered, which knows nothing, is sent the whole list.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from orchestrator.rules.blocklist import Blocklist, BlockRecord
from secbeat import subjects
from secbeat.clock import Clock, wire_time
from secbeat.store import Messaging
from secbeat.wire.rules import BlocklistNotice

_PUBLISHED_PER_TURN = 200
_MOST_IN_NOTICE = 200  # entries; with more the node fetches, over HTTP
_AFTER_TIMER = 0.5  # seconds; the original's timer must have fired


class Follower(Protocol):
    """A node, as far as the blocklist is concerned."""

    node_id: str
    legacy: bool
    blocklist_version: int


class Teller:
    """Publishes to both kinds of nodes."""

    def __init__(self, messaging: Messaging, clock: Clock) -> None:
        self._messaging, self._clock = messaging, clock
        self._timers: list[tuple[datetime, str]] = []
        self._originals: set[str] = set()

    # ------------------------------------------------------------------ ours

    async def notify(self, blocklist: Blocklist, followers: Iterable[Follower]) -> None:
        """Send the version, and what leads to it, to each node that reports another one."""
        notices: dict[int, bytes] = {}
        behind = [node for node in followers if not node.legacy and node.blocklist_version != blocklist.version]
        for number, node in enumerate(behind, 1):
            reported = node.blocklist_version
            if reported not in notices:
                notices[reported] = self._notice(blocklist, reported)
            await self._messaging.publish(subjects.command(node.node_id, "blocklist"), notices[reported])
            if number % _PUBLISHED_PER_TURN == 0:
                await asyncio.sleep(0)

    def _notice(self, blocklist: Blocklist, since: int) -> bytes:
        found = blocklist.difference(since, self._clock.now(), most=_MOST_IN_NOTICE)
        if found is None:
            return BlocklistNotice(version=blocklist.version).encode()
        return BlocklistNotice(
            version=found.version, since=since, blocked=found.blocked, removed=found.removed
        ).encode()

    # ------------------------------------------------------------------ the original's

    async def blocked(self, record: BlockRecord, *, instead_of: BlockRecord | None) -> str:
        """Tell of a block; the command's id."""
        if instead_of is not None and instead_of.expires_at < record.expires_at:
            heapq.heappush(self._timers, (instead_of.expires_at, record.ip))
        return await self._command("ADD_DYNAMIC_RULE", record, record.ttl_seconds)

    async def unblocked(self, record: BlockRecord) -> str:
        """Tell of a removal; the command's id."""
        # Its timer goes on and would lift a block of the same address that comes meanwhile.
        heapq.heappush(self._timers, (record.expires_at, record.ip))
        return await self._command("REMOVE_DYNAMIC_RULE", record, record.ttl_seconds)

    async def repeat(self, blocklist: Blocklist, followers: Iterable[Follower]) -> None:
        """Send again what nodes of the original have forgotten or never heard."""
        now = self._clock.now()
        originals = {node.node_id for node in followers if node.legacy}
        new, self._originals = originals - self._originals, originals
        while self._timers and (now - self._timers[0][0]).total_seconds() >= _AFTER_TIMER:
            _, ip = heapq.heappop(self._timers)
            record = blocklist.get(ip)
            if not new and record is not None and record.expires_at > now:
                await self._again(record, now)
        if new:
            for number, record in enumerate(blocklist.live(now), 1):
                await self._again(record, now)
                if number % _PUBLISHED_PER_TURN == 0:
                    await asyncio.sleep(0)

    def forget(self) -> None:
        """Another list is in force: every node of the original has to hear of it."""
        self._originals.clear()
        self._timers.clear()

    async def _again(self, record: BlockRecord, now: datetime) -> None:
        left = int((record.expires_at - now).total_seconds())
        if left > 0:
            await self._command("ADD_DYNAMIC_RULE", record, left)

    async def _command(self, action: str, record: BlockRecord, ttl_seconds: int) -> str:
        """The original's command, key for key; its nodes know single addresses only."""
        command_id = str(uuid.uuid4())
        if "/" not in record.ip:
            message = {
                "command_id": command_id,
                "action": action,
                "rule_type": "IP_BLOCK",
                "target": record.ip,
                "ttl_seconds": ttl_seconds,
                "timestamp": wire_time(self._clock.now()),
                "metadata": {
                    "block_reason": record.reason,
                    "blocked_by": record.blocked_by,
                    "metadata": record.metadata,
                },
            }
            payload = json.dumps(message, separators=(",", ":"), ensure_ascii=False, default=str).encode()
            await self._messaging.publish(subjects.LEGACY_CONTROL, payload)
        return command_id
