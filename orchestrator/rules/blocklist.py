"""The blocklist as a value: entries, their ends, and what changed between two versions. Pure; the caller has the clock.

Every change raises the version. The changes of the newest versions are kept, so that a node that is a little behind
gets the difference and not ten thousand entries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple

from pydantic import Field

from secbeat.errors import SecbeatError
from secbeat.wire.base import Moment, Record
from secbeat.wire.rules import DEFAULT_TTL_SECONDS, BlockedRule, BlockRequest, RulesSnapshot

_CHANGES_KEPT = 2000
_WIDEST = {4: 8, 6: 16}


class BlockRecord(Record):
    """One entry as it is stored."""

    ip: str
    reason: str
    blocked_at: Moment
    blocked_by: str = Field(max_length=128)
    ttl_seconds: int
    expires_at: Moment
    metadata: Any = None


class Change(NamedTuple):
    """One entry of one version; ``record`` None: it left."""

    version: int
    ip: str
    record: BlockRecord | None


def canonical(text: str) -> str:
    """An address or a network in the one form in which it is stored.

    Raises:
        SecbeatError: RULE_INVALID (422): neither, or a network wider than /8 (IPv6: /16).
    """
    try:
        if "/" not in text:
            address = ip_address(text)
            mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
            return str(mapped or address)
        network = ip_network(text, strict=False)
    except ValueError:
        raise SecbeatError("RULE_INVALID", status=422, why=f"ip: {text[:64]!r} is no address or network") from None
    if network.prefixlen < _WIDEST[network.version]:
        raise SecbeatError("RULE_INVALID", status=422, why=f"ip: {network} is wider than /{_WIDEST[network.version]}")
    return str(network.network_address) if network.num_addresses == 1 else str(network)


class Blocklist:
    """The entries of one version."""

    def __init__(self, records: Iterable[BlockRecord] = (), *, version: int = 0) -> None:
        self.version = version
        self.records = {record.ip: record for record in records}
        self._changes: deque[Change] = deque(maxlen=_CHANGES_KEPT)
        self._known_from = version

    def __len__(self) -> int:
        return len(self.records)

    def merged(self, ip: str, request: BlockRequest, *, by: str, now: datetime) -> BlockRecord:
        """The entry that ``request`` leads to: of two ends the later one stands."""
        ttl = request.ttl_seconds or DEFAULT_TTL_SECONDS
        end = now + timedelta(seconds=ttl)
        known = self.records.get(ip)
        if known is not None and known.expires_at > end:
            end, ttl = known.expires_at, int((known.expires_at - now).total_seconds())
        return BlockRecord(
            ip=ip,
            reason=request.reason,
            blocked_at=now,
            blocked_by=by,
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
            if record is None:
                self.records.pop(ip, None)
            else:
                self.records[ip] = record

    def live(self, now: datetime) -> list[BlockRecord]:
        """The entries in force, whether or not the expired ones have been removed yet."""
        return [record for record in self.records.values() if record.expires_at > now]

    def expired(self, now: datetime) -> list[str]:
        """The entries whose end has passed."""
        return [ip for ip, record in self.records.items() if record.expires_at <= now]

    def snapshot(self, since: int | None, now: datetime) -> RulesSnapshot:
        """What a reader that has version ``since`` needs; None: it has nothing."""
        if since is None or not self._known_from <= since <= self.version:
            rules = [_rule(record) for record in self.live(now)]
            return RulesSnapshot(version=self.version, complete=True, blocked=rules)
        latest = {change.ip: change.record for change in self._changes if change.version > since}
        return RulesSnapshot(
            version=self.version,
            complete=False,
            since=since,
            blocked=[_rule(record) for record in latest.values() if record is not None and record.expires_at > now],
            removed=[ip for ip, record in latest.items() if record is None],
        )


def _rule(record: BlockRecord) -> BlockedRule:
    return BlockedRule(ip=record.ip, expires_at=record.expires_at)
