"""Changes the blocklist, keeps it in the store, ends what has expired, and has the nodes told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Protocol

import msgspec

from orchestrator.rules import storing
from orchestrator.rules.blocklist import Blocklist, BlockRecord, canonical, shard_of
from orchestrator.rules.protecting import Protected
from orchestrator.rules.telling import Follower, Teller
from secbeat.clock import Clock
from secbeat.errors import RefusedError, SecbeatError
from secbeat.service import Stop
from secbeat.store import Bucket, Lease, Messaging, NotLeader, Unavailable
from secbeat.wire.rules import BlockRequest, RulesSnapshot

log = logging.getLogger("rules")

_INTERVAL = 5.0
_TOLD_AT_MOST_EVERY = 0.1
_MAX_METADATA = 2048
_MAX_SHARD = 512 * 1024  # bytes: half of what a message may have
_MAX_BYTES = 32 * 1024 * 1024  # the bucket keeps five revisions of each key in 256 MiB


class Publisher(Protocol):
    """Where events go; ``EventHub`` is one."""

    def publish(self, kind: str, sentence: str, **facts: Any) -> None: ...


class Rules:
    """The blocklist of this cluster.

    A change is in the store before it is in force. The list is read again whenever the lease is won anew, so that a
    second orchestrator goes on with what the first had; until it has been read nobody is told that it is empty.

    Args:
        bucket: the fenced bucket ``state``.
        followers: the nodes; those of the original are told in the original's way.
        protected: what cannot be blocked.
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
        protected: Protected | None = None,
        events: Publisher | None = None,
        max_entries: int = 100_000,
    ) -> None:
        self._bucket, self._lease, self._clock = bucket, lease, clock
        self._followers, self._events, self._max = followers, events, max_entries
        self._protected = protected or Protected()
        self._teller = Teller(messaging, clock)
        self._list = Blocklist()
        self._sizes: dict[int, int] = {}
        self._bytes = 0
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
        """The entries in force as they are known here, oldest first."""
        return sorted(self._list.live(self._clock.now()), key=lambda record: record.blocked_at)

    async def reading(self) -> Blocklist:
        """The list, to be read in parts.

        Without the lease it is what was known last: that is enough for a person, and not for a node.

        Raises:
            NotLeader: another orchestrator leads, and this one never did.
            Unavailable: the store does not answer.
        """
        if self._lease.held or self._loaded_epoch is None:
            async with self._lock:
                await self._ensure_loaded()
        return self._list

    async def complete(self) -> tuple[int, Iterator[BlockRecord]]:
        """The version, and all entries of it.

        Entries that come or go while they are read may be missing or left over: the difference since that version,
        which every follower gets next, makes that good.

        Raises:
            NotLeader, Unavailable: as it stands here, the list may be out of date.
        """
        found = await self._current()
        return found.version, found.live(self._clock.now())

    async def difference(self, since: int) -> RulesSnapshot | None:
        """What changed since a version; None: that is not known any more. Raises as :meth:`complete`."""
        return (await self._current()).difference(since, self._clock.now())

    async def _current(self) -> Blocklist:
        if not self._lease.held or self._loaded_epoch != self._lease.epoch:
            async with self._lock:
                await self._ensure_loaded()
        return self._list

    # -------------------------------------------------------------- changing

    async def block(self, request: BlockRequest, *, by: str) -> tuple[BlockRecord, str]:
        """Block an address or a network; returns the entry and the id of the command sent to the nodes.

        Raises:
            SecbeatError: RULE_INVALID (422).
            RefusedError: RULE_PROTECTED, RULES_FULL (409).
            Unavailable: the store did not confirm; not in force.
        """
        ip = canonical(request.ip)
        _check_metadata(request.metadata)
        await self._protected.check(ip)
        async with self._lock:
            await self._ensure_loaded()
            known = self._list.get(ip)
            if known is None and len(self._list) >= self._max:
                raise RefusedError("RULES_FULL", why=f"it holds {len(self._list)} of {self._max} entries")
            if self._bytes > _MAX_BYTES:
                raise RefusedError("RULES_FULL", why=f"its reasons and metadata take over {_MAX_BYTES >> 20} MiB")
            record = self._list.merged(ip, request, by=by, now=self._clock.now())
            await self._write({ip: record})
        command_id = await self._teller.blocked(record, instead_of=known)
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
            record = self._list.get(ip)
            if record is None:
                return None
            await self._write({ip: None})
            ended = record.expires_at <= self._clock.now()
        if ended:
            return None
        self._tell("rule.unblocked", f"{ip} is no longer blocked", ip=ip, by=by)
        return await self._teller.unblocked(record)

    def covering(self, text: str) -> str | None:
        """The wider entry because of which an address is blocked even without one of its own."""
        return self._list.covering(canonical(text), self._clock.now())

    async def _ensure_loaded(self) -> None:
        if not self._lease.held:
            raise NotLeader("the lease is not held here")
        if self._loaded_epoch != self._lease.epoch:
            epoch = self._lease.epoch
            self._list, self._sizes = await storing.load(self._bucket)
            self._bytes = sum(self._sizes.values())
            self._tried_version = self._list.version
            self._unsure.clear()
            self._teller.forget()
            self._loaded_epoch = epoch

    async def _write(self, changes: dict[str, BlockRecord | None]) -> None:
        """Store changes of one shard, then apply them.

        A version number is never tried twice: an unconfirmed write may be in the store.
        """
        (shard,) = {shard_of(ip) for ip in changes}
        after = {**self._list.shard(shard), **changes}
        self._tried_version += 1
        value = storing.encoded((record for record in after.values() if record is not None), self._tried_version)
        if len(value) > max(_MAX_SHARD, self._sizes.get(shard, 0)):
            raise RefusedError("RULES_FULL", why="the entries that are stored together with it leave no room")
        try:
            await storing.save(self._bucket, shard, value)
        except Unavailable:
            self._unsure.add(shard)
            raise
        self._unsure.discard(shard)
        self._bytes += len(value) - self._sizes.get(shard, 0)
        self._sizes[shard] = len(value)
        self._list.apply(self._tried_version, changes.items())
        self._changed.set()

    # -------------------------------------------------------------- keeping

    async def run(self, stop: Stop) -> None:
        """Until the end: drop what has expired, tell nodes that are behind; at every change and every 5 s."""
        while not stop.requested:
            at_once = self._changed.is_set()
            self._changed.clear()
            try:
                await self.tick()
            except NotLeader:
                pass
            except Unavailable as error:
                log.warning("The blocklist waits for the store: %s", error, extra={"action": "rules_wait"})
            if at_once:
                # A burst of changes is told together.
                await self._clock.sleep(_TOLD_AT_MOST_EVERY)
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
        await self._notify()
        told = self._list.version
        await self._expire(self._clock.now())
        for shard in sorted(self._unsure):
            # What an unconfirmed write may have left there must not come back at the next start.
            async with self._lock:
                await self._ensure_loaded()
                await self._rewrite(shard)
        if self._list.version != told:
            await self._notify()

    async def _expire(self, now: datetime) -> None:
        """Shard by shard, so that a block never waits for thousands of entries that end together."""
        shards: dict[int, list[str]] = {}
        for ip in self._list.expired(now):
            shards.setdefault(shard_of(ip), []).append(ip)
        gone: list[str] = []
        for shard, candidates in shards.items():
            async with self._lock:
                await self._ensure_loaded()
                held = self._list.shard(shard)
                ended = [ip for ip in candidates if ip in held and held[ip].expires_at <= now]
                if ended:
                    await self._write(dict.fromkeys(ended))
                    gone += ended
        if gone:
            self._tell("rule.expired", f"{len(gone)} blocked addresses have expired", ips=gone[:100])

    async def _rewrite(self, shard: int) -> None:
        self._tried_version += 1
        value = storing.encoded(self._list.shard(shard).values(), self._tried_version)
        await storing.save(self._bucket, shard, value)
        self._unsure.discard(shard)
        self._list.apply(self._tried_version, ())

    async def _notify(self) -> None:
        await self._teller.notify(self._list, self._followers())
        await self._teller.repeat(self._list, self._followers())

    async def _wait(self, stop: Stop) -> None:
        waits = [
            asyncio.ensure_future(wait) for wait in (self._changed.wait(), stop.wait(), self._clock.sleep(_INTERVAL))
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _tell(self, kind: str, sentence: str, **facts: Any) -> None:
        if self._events is not None:
            self._events.publish(kind, sentence, **facts)


def _check_metadata(metadata: object) -> None:
    try:
        size = len(msgspec.json.encode(metadata))
    except (OverflowError, ValueError) as error:
        raise SecbeatError("RULE_INVALID", status=422, why=f"metadata: {error}") from None
    if size > _MAX_METADATA:
        raise SecbeatError("RULE_INVALID", status=422, why=f"metadata: over {_MAX_METADATA} bytes")
