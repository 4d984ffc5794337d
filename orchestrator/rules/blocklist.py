"""The blocklist as a value: entries, their ends, and what changed between two versions. Pure; the caller has the clock.

Every change raises the version. The changes of the newest versions are kept, so that a node that is a little behind
gets the difference and not a hundred thousand entries. Entries lie in shards by a hash of the address: a shard is what
is stored under one key, and a place in the order of pages that does not move when other entries come and go.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, NamedTuple

import msgspec

from secbeat.errors import SecbeatError
from secbeat.wire.rules import DEFAULT_TTL_SECONDS, BlockedRule, BlockRequest, RulesSnapshot

SHARDS = 4096
_CHANGES_KEPT = 2000
_WIDEST = {4: 8, 6: 16}
_MAPPED = IPv6Network("::ffff:0:0/96")
Network = IPv4Network | IPv6Network


class BlockRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One entry, in memory and as it is stored; a pydantic model would take three times the memory."""

    ip: str
    reason: str
    blocked_at: datetime
    blocked_by: str
    ttl_seconds: int
    expires_at: datetime
    metadata: Any = None


class Change(NamedTuple):
    """One entry of one version; ``record`` None: it left."""

    version: int
    ip: str
    record: BlockRecord | None


def shard_of(ip: str) -> int:
    """In which shard an entry lies."""
    return zlib.crc32(ip.encode()) % SHARDS


def canonical(text: str) -> str:
    """An address or a network in the one form in which it is stored; IPv4 in IPv6's clothing becomes IPv4.

    Raises:
        SecbeatError: RULE_INVALID (422): neither, one with a zone, or a network wider than /8 (IPv6: /16).
    """
    try:
        # A zone means something on one machine only.
        network = ip_network("" if "%" in text else text, strict=False)
    except ValueError:
        raise SecbeatError("RULE_INVALID", status=422, why=f"ip: {text[:64]!r} is no address or network") from None
    network = _unmapped(network)
    if network.prefixlen < _WIDEST[network.version]:
        raise SecbeatError("RULE_INVALID", status=422, why=f"ip: {network} is wider than /{_WIDEST[network.version]}")
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        address = network.network_address
        assert isinstance(address, IPv6Address)  # noqa: S101 - for the type checker
        return ip_network((int(address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


class Blocklist:
    """The entries of one version."""

    def __init__(self, records: Iterable[BlockRecord] = (), *, version: int = 0) -> None:
        self.version = version
        self._shards: list[dict[str, BlockRecord]] = [{} for _ in range(SHARDS)]
        self._size = 0
        self._soonest: datetime | None = None  # no entry ends before
        self._changes: deque[Change] = deque(maxlen=_CHANGES_KEPT)
        self._known_from = version
        self.restore(records)

    def restore(self, records: Iterable[BlockRecord]) -> None:
        """Take over entries that belong to the present version."""
        for record in records:
            self._put(record)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[BlockRecord]:
        return (record for shard in self._shards for record in shard.values())

    def get(self, ip: str) -> BlockRecord | None:
        """The entry of exactly this address or network."""
        return self._shards[shard_of(ip)].get(ip)

    def shard(self, number: int) -> dict[str, BlockRecord]:
        """The entries that are stored together; not to be changed."""
        return self._shards[number]

    def covering(self, ip: str, now: datetime) -> str | None:
        """The narrowest other entry in force that ``ip`` (canonical) lies in, or None."""
        network = ip_network(ip)
        for length in range(network.prefixlen - 1, _WIDEST[network.version] - 1, -1):
            wider = str(network.supernet(new_prefix=length))
            found = self.get(wider)
            if found is not None and found.expires_at > now:
                return wider
        return None

    def merged(self, ip: str, request: BlockRequest, *, by: str, now: datetime) -> BlockRecord:
        """The entry that ``request`` leads to: of two ends the later one stands."""
        ttl = request.ttl_seconds or DEFAULT_TTL_SECONDS
        end = now + timedelta(seconds=ttl)
        known = self.get(ip)
        if known is not None and known.expires_at > end:
            end, ttl = known.expires_at, int((known.expires_at - now).total_seconds())
        return BlockRecord(
            ip=ip,
            reason=request.reason,
            blocked_at=now,
            blocked_by=by[:128],
            ttl_seconds=ttl,
            expires_at=end,
            metadata=request.metadata,
        )

    def apply(self, version: int, changes: Iterable[tuple[str, BlockRecord | None]]) -> None:
        """Take over changes that are on disk as ``version``."""
        self.version = version
        for ip, record in changes:
            if len(self._changes) == _CHANGES_KEPT:
                self._known_from = self._changes[0].version
            self._changes.append(Change(version, ip, record))
            if record is not None:
                self._put(record)
            elif self._shards[shard_of(ip)].pop(ip, None) is not None:
                self._size -= 1

    def _put(self, record: BlockRecord) -> None:
        shard = self._shards[shard_of(record.ip)]
        self._size += record.ip not in shard
        shard[record.ip] = record
        if self._soonest is None or record.expires_at < self._soonest:
            self._soonest = record.expires_at

    def expired(self, now: datetime) -> list[str]:
        """The entries whose end has passed. Looks through the list only when one may have."""
        if self._soonest is None or self._soonest > now:
            return []
        gone = [record.ip for record in self if record.expires_at <= now]
        if not gone:
            self._soonest = min((record.expires_at for record in self), default=None)
        return gone

    # ------------------------------------------------------------------ reading in parts

    def live(self, now: datetime) -> Iterator[BlockRecord]:
        """The entries in force, whether or not the expired ones have been removed yet.

        What comes or goes while it is read may or may not be among them.
        """
        for shard in self._shards:
            for record in list(shard.values()):
                if record.expires_at > now:
                    yield record

    def count(self, now: datetime) -> int:
        """How many entries are in force."""
        if self._soonest is None or self._soonest > now:
            return self._size
        return sum(1 for _ in self.live(now))

    def page(self, after: str | None, now: datetime) -> Iterator[BlockRecord]:
        """The entries in force behind ``after``, in an order in which an entry never moves."""
        first = 0 if after is None else shard_of(after)
        for number in range(first, SHARDS):
            for ip, record in sorted(self._shards[number].items()):
                if record.expires_at > now and not (after is not None and number == first and ip <= after):
                    yield record

    def covers(self, since: int | None) -> bool:
        """Whether the changes since ``since`` are still known."""
        return since is not None and self._known_from <= since <= self.version

    def difference(self, since: int, now: datetime, *, most: int | None = None) -> RulesSnapshot | None:
        """What leads from ``since`` to the present version; None if that is not known or over ``most`` entries."""
        if not self.covers(since):
            return None
        latest: dict[str, BlockRecord | None] = {}
        for change in reversed(self._changes):
            if change.version <= since:
                break
            latest.setdefault(change.ip, change.record)
            if most is not None and len(latest) > most:
                return None
        return RulesSnapshot(
            version=self.version,
            complete=False,
            since=since,
            blocked=[
                BlockedRule(ip=record.ip, expires_at=record.expires_at)
                for record in latest.values()
                if record is not None and record.expires_at > now
            ],
            removed=[ip for ip, record in latest.items() if record is None],
        )
