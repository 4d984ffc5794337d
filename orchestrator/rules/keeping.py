"""Changes the blocklist, keeps it in the store, ends what has expired, and tells the nodes."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from orchestrator.rules import storing
from orchestrator.rules.blocklist import Blocklist, BlockRecord, canonical
from secbeat import subjects
from secbeat.clock import Clock, wire_time
from secbeat.errors import RefusedError, SecbeatError
from secbeat.service import Stop
from secbeat.store import Bucket, Lease, Messaging, NotLeader, Unavailable
from secbeat.wire.rules import BlocklistNotice, BlockRequest, RulesSnapshot

log = logging.getLogger("rules")

_INTERVAL = 15.0
_MAX_METADATA = 2048
_PUBLISHED_PER_TURN = 200


class Follower(Protocol):
    """A node, as far as the blocklist is concerned."""

    node_id: str
    legacy: bool
    blocklist_version: int


class Publisher(Protocol):
    """Where events go; ``EventHub`` is one."""

    def publish(self, kind: str, sentence: str, **facts: Any) -> None: ...


class Rules:
    """The blocklist of this cluster.

    A change is in the store before it is in force. The list is read again whenever the lease is won anew, so that a
    second orchestrator goes on with what the first had.

    Args:
        bucket: the fenced bucket ``state``.
        followers: the nodes; those of the original are told in the original's way.
        max_entries: every node holds the whole list.
    """

    def __init__(
        self,
        *,
        bucket: Bucket,
        lease: Lease,
        messaging: Messaging,
        clock: Clock,
        followers: Callable[[], Iterable[Follower]] = tuple,
        events: Publisher | None = None,
        max_entries: int = 10_000,
    ) -> None:
        self._bucket, self._lease, self._messaging, self._clock = bucket, lease, messaging, clock
        self._followers, self._events, self._max = followers, events, max_entries
        self._list = Blocklist()
        self._loaded_epoch: int | None = None
        self._tried_version = 0
        self._unsure: set[int] = set()
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()

    # -------------------------------------------------------------- reading

    @property
    def version(self) -> int:
        return self._list.version

    def __len__(self) -> int:
        return len(self._list)

    def listing(self) -> list[BlockRecord]:
        """The entries in force, oldest first."""
        return sorted(self._list.live(self._clock.now()), key=lambda record: record.blocked_at)

    def snapshot(self, since: int | None = None) -> RulesSnapshot:
        """The list, or what changed since a version."""
        return self._list.snapshot(since, self._clock.now())

    # -------------------------------------------------------------- changing

    async def block(self, request: BlockRequest, *, by: str) -> tuple[BlockRecord, str]:
        """Block an address or a network; returns the entry and the id of the command sent to the nodes.

        Raises:
            SecbeatError: RULE_INVALID (422), RULES_FULL (409).
            Unavailable: the store did not confirm; not in force.
        """
        ip = canonical(request.ip)
        if len(json.dumps(request.metadata, default=str)) > _MAX_METADATA:
            raise SecbeatError("RULE_INVALID", status=422, why=f"metadata: over {_MAX_METADATA} characters")
        async with self._lock:
            await self._ensure_loaded()
            if ip not in self._list.records and len(self._list) >= self._max:
                raise RefusedError("RULES_FULL", why=f"it holds {len(self._list)} of {self._max} entries")
            record = self._list.merged(ip, request, by=by, now=self._clock.now())
            await self._write({ip: record})
        command_id = await self._tell_original("ADD_DYNAMIC_RULE", ip, record)
        self._tell("rule.blocked", f"{ip} is blocked for {record.ttl_seconds} s: {record.reason}", ip=ip, by=by)
        return record, command_id

    async def unblock(self, text: str, *, by: str) -> str | None:
        """Remove an entry; the id of the command, or None if there was none.

        Raises:
            SecbeatError: RULE_INVALID (422).
            Unavailable: the store did not confirm; still in force.
        """
        ip = canonical(text)
        async with self._lock:
            await self._ensure_loaded()
            record = self._list.records.get(ip)
            if record is None:
                return None
            await self._write({ip: None})
        self._tell("rule.unblocked", f"{ip} is no longer blocked", ip=ip, by=by)
        return await self._tell_original("REMOVE_DYNAMIC_RULE", ip, record)

    async def _ensure_loaded(self) -> None:
        if not self._lease.held:
            raise NotLeader("the lease is not held here")
        if self._loaded_epoch != self._lease.epoch:
            epoch = self._lease.epoch
            self._list = await storing.load(self._bucket)
            self._tried_version = self._list.version
            self._unsure.clear()
            self._loaded_epoch = epoch

    async def _write(self, changes: dict[str, BlockRecord | None]) -> None:
        """Store, then apply. A version number is never tried twice: an unconfirmed write may be in the store."""
        for shard in sorted({storing.shard_of(ip) for ip in changes}):
            part = {ip: record for ip, record in changes.items() if storing.shard_of(ip) == shard}
            self._tried_version += 1
            try:
                await storing.save(self._bucket, shard, self._after(shard, part), self._tried_version)
            except Unavailable:
                self._unsure.add(shard)
                raise
            self._unsure.discard(shard)
            self._list.apply(self._tried_version, part.items())
            self._changed.set()

    def _after(self, shard: int, changes: dict[str, BlockRecord | None]) -> list[BlockRecord]:
        kept = {ip: record for ip, record in self._list.records.items() if storing.shard_of(ip) == shard}
        return [record for record in (kept | changes).values() if record is not None]

    # -------------------------------------------------------------- keeping

    async def run(self, stop: Stop) -> None:
        """Until the end: drop what has expired, tell nodes that are behind; at every change and every 15 s."""
        while not stop.requested:
            self._changed.clear()
            try:
                await self.tick()
            except NotLeader:
                pass
            except Unavailable as error:
                log.warning("The blocklist waits for the store: %s", error, extra={"action": "rules_wait"})
            await self._wait(stop)

    async def tick(self) -> None:
        """One round of :meth:`run`; nothing while another orchestrator leads.

        Raises:
            Unavailable: the store did not confirm; the next round tries again.
        """
        if not self._lease.held:
            return
        async with self._lock:
            await self._ensure_loaded()
            if gone := self._list.expired(self._clock.now()):
                await self._write(dict.fromkeys(gone))
                self._tell("rule.expired", f"{len(gone)} blocked addresses have expired", ips=gone[:100])
            for shard in sorted(self._unsure):
                # What an unconfirmed write may have left there must not come back at the next start.
                await self._rewrite(shard)
        await self._notify()

    async def _rewrite(self, shard: int) -> None:
        self._tried_version += 1
        await storing.save(self._bucket, shard, self._after(shard, {}), self._tried_version)
        self._unsure.discard(shard)
        self._list.apply(self._tried_version, ())

    async def _wait(self, stop: Stop) -> None:
        waits = [
            asyncio.ensure_future(wait) for wait in (self._changed.wait(), stop.wait(), self._clock.sleep(_INTERVAL))
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    # -------------------------------------------------------------- telling

    async def _notify(self) -> None:
        """Send the version to each node that reports another one."""
        version = self._list.version
        payload = BlocklistNotice(version=version).encode()
        behind = [node.node_id for node in self._followers() if not node.legacy and node.blocklist_version != version]
        for number, node_id in enumerate(behind, 1):
            await self._messaging.publish(subjects.command(node_id, "blocklist"), payload)
            if number % _PUBLISHED_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _tell_original(self, action: str, ip: str, record: BlockRecord) -> str:
        """The original's command; its nodes know single addresses only."""
        command_id = str(uuid.uuid4())
        if "/" not in ip:
            message = {
                "command_id": command_id,
                "action": action,
                "rule_type": "IP_BLOCK",
                "target": ip,
                "ttl_seconds": record.ttl_seconds,
                "timestamp": wire_time(self._clock.now()),
                "metadata": record.metadata,
            }
            await self._messaging.publish(subjects.LEGACY_CONTROL, json.dumps(message, default=str).encode())
        return command_id

    def _tell(self, kind: str, sentence: str, **facts: Any) -> None:
        if self._events is not None:
            self._events.publish(kind, sentence, **facts)
