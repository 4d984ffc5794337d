"""The blocklist in the store: 4096 keys, each with the entries whose address hashes to it.

One key for the whole list would outgrow a message, one per entry would make a hundred thousand keys; so a change writes
one key of some tens of entries. The list's version is the highest that any key carries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from orchestrator.rules.blocklist import Blocklist, BlockRecord
from secbeat.errors import ConfigError
from secbeat.store import Bucket
from secbeat.wire.base import VERSION

_PREFIX = "rules."
_DECODED_PER_TURN = 32


class Shard(msgspec.Struct):
    """One key's value."""

    version: int
    entries: list[BlockRecord]
    v: int = VERSION


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Shard).decode


async def load(bucket: Bucket) -> tuple[Blocklist, dict[int, int]]:
    """Read the whole list; beside it how many bytes each shard takes.

    Raises:
        Unavailable: it could not be read completely.
        ConfigError: it was written by a newer program (STATE_NEWER).
    """
    version, records, sizes = 0, list[BlockRecord](), dict[int, int]()
    for number, entry in enumerate(await bucket.entries(_PREFIX), 1):
        shard = _decode(entry.value)
        if shard.v > VERSION:
            raise ConfigError(
                "STATE_NEWER", why=f"{entry.key} has version {shard.v}, this program reads up to {VERSION}"
            )
        version = max(version, shard.version)
        records += shard.entries
        sizes[int(entry.key.removeprefix(_PREFIX), 16)] = len(entry.value)
        if number % _DECODED_PER_TURN == 0:
            await asyncio.sleep(0)
    found = Blocklist(version=version)
    for start in range(0, len(records), 1000):
        found.restore(records[start : start + 1000])
        await asyncio.sleep(0)
    return found, sizes


def encoded(records: Iterable[BlockRecord], version: int) -> bytes:
    """A key's value."""
    return _encode(Shard(version=version, entries=list(records)))


async def save(bucket: Bucket, shard: int, value: bytes) -> None:
    """Write one key.

    Raises:
        Unavailable: not confirmed; it may or may not be written.
    """
    await bucket.put(f"{_PREFIX}{shard:03x}", value)
