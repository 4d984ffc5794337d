"""A ledger in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator


class MemoryLedger:
    """A Ledger. ``records`` holds (kind, pool, record) in order; ``next_error`` is raised by the next call, once."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, bytes]] = []
        self.next_error: Exception | None = None

    async def append(self, kind: str, pool: str, record: bytes) -> None:
        self._fail()
        self.records.append((kind, pool, record))

    async def read(self, kind: str, pool: str | None = None, *, newest: int = 100) -> AsyncIterator[bytes]:
        self._fail()
        found = [record for k, p, record in self.records if k == kind and pool in (None, p)]
        for record in found[max(0, len(found) - newest) :]:
            yield record

    def _fail(self) -> None:
        error, self.next_error = self.next_error, None
        if error is not None:
            raise error
