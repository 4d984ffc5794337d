"""The blocklist in the store: 256 keys, each with the entries whose address hashes to it.

One key for the whole list would outgrow a message, one per entry would make ten thousand keys; so a change writes one
key of some tens of entries. The list's version is the highest that any key carries.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from orchestrator.rules.blocklist import Blocklist, BlockRecord
from secbeat.store import Bucket
from secbeat.wire.base import Count, Record

_PREFIX = "rules."
_SHARDS = 256


class Shard(Record):
    """One key's value."""

    version: Count
    entries: list[BlockRecord]


def shard_of(ip: str) -> int:
    """Which key holds ``ip``."""
    return zlib.crc32(ip.encode()) % _SHARDS


async def load(bucket: Bucket) -> Blocklist:
    """Read the whole list.

    Raises:
        Unavailable: it could not be read completely.
        ConfigError: it was written by a newer program (STATE_NEWER).
    """
    shards = [Shard.decode(entry.value) for entry in await bucket.entries(_PREFIX)]
    version = max((shard.version for shard in shards), default=0)
    return Blocklist((entry for shard in shards for entry in shard.entries), version=version)


async def save(bucket: Bucket, shard: int, records: Iterable[BlockRecord], version: int) -> None:
    """Write one key.

    Raises:
        Unavailable: not confirmed; it may or may not be written.
    """
    await bucket.put(f"{_PREFIX}{shard:02x}", Shard(version=version, entries=list(records)).encode())
