"""The ledger on a JetStream stream, one subject per kind and pool."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from secbeat import ids, subjects
from secbeat.bus.link import Link, Refused
from secbeat.bus.scan import Scan, Stored
from secbeat.store import Unavailable

_NO_POOL = "_"
_FIRST_WINDOW = 8
_WIDEN = 8


class NatsLedger:
    """A Ledger. ``pool`` is a pool's name, or ``_`` (or empty) where there is none."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def append(self, kind: str, pool: str, record: bytes) -> None:
        try:
            await self._link.call(_subject(kind, pool or _NO_POOL), record)
        except Refused as refusal:
            raise Unavailable(f"ledger: {refusal}") from None

    async def read(self, kind: str, pool: str | None = None, *, newest: int = 100) -> AsyncIterator[bytes]:
        subject = f"secbeat.ledger.{_token(kind)}.*" if pool is None else _subject(kind, pool or _NO_POOL)
        for message in await self._newest(subject, newest):
            yield message.payload

    async def _newest(self, subject: str, newest: int) -> list[Stored]:
        """JetStream reads forwards only: widen a window that ends at the last message until it holds enough."""
        first, last = await self._bounds()
        window = max(newest, 1) * _FIRST_WINDOW
        while newest > 0 and last >= first:
            start = max(first, last - window + 1)
            scan = await Scan.open(
                self._link, subjects.LEDGER_STREAM, subject, deliver_policy="by_start_sequence", opt_start_seq=start
            )
            try:
                if scan.pending >= newest or start == first:
                    messages = await scan.read()
                    return messages[max(0, len(messages) - newest) :]
            finally:
                await scan.close()
            window *= _WIDEN
        return []

    async def _bounds(self) -> tuple[int, int]:
        try:
            info = await self._link.call(f"$JS.API.STREAM.INFO.{subjects.LEDGER_STREAM}", json.dumps({}).encode())
        except Refused as refusal:
            raise Unavailable(f"ledger: {refusal}") from None
        return max(1, int(info["state"]["first_seq"])), int(info["state"]["last_seq"])


def _subject(kind: str, pool: str) -> str:
    return subjects.ledger(pool if pool == _NO_POOL else ids.check_pool(pool), _token(kind))


def _token(kind: str) -> str:
    if not kind.isascii() or not kind.isidentifier():
        raise ValueError(f"not a kind of record: {kind[:64]!r}")
    return kind
