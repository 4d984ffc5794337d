"""A bucket in memory that refuses exactly what the real one refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from secbeat.store import Conflict, Entry, Lease, NotLeader


class Call(NamedTuple):
    """One call on a fake, as it was made."""

    method: str
    key: str
    value: bytes | None = None
    revision: int | None = None


@dataclass
class _Stored:
    """What survives the client: shared by all views on one bucket."""

    values: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    revision: int = 0


class MemoryBucket:
    """A Bucket in memory.

    Attributes:
        calls: every call in order, refused ones included.
        next_error: raised by the next call, once; nothing happens.
        lost_reply: raised by the next write, once, *after* it has happened: a confirmation that got lost.
    """

    def __init__(self, *, lease: Lease | None = None, stored: _Stored | None = None) -> None:
        self._stored = stored or _Stored()
        self._lease = lease
        self.calls: list[Call] = []
        self.next_error: Exception | None = None
        self.lost_reply: Exception | None = None

    def fenced(self, lease: Lease) -> MemoryBucket:
        """Another client's view on the same stored keys, whose writes need ``lease``."""
        return MemoryBucket(lease=lease, stored=self._stored)

    @property
    def data(self) -> dict[str, bytes]:
        """The stored keys and values (a copy)."""
        return {key: value for key, (value, _) in self._stored.values.items()}

    async def get(self, key: str) -> Entry | None:
        self._called(Call("get", key))
        found = self._stored.values.get(key)
        return None if found is None else Entry(key, *found)

    async def create(self, key: str, value: bytes) -> int:
        self._called(Call("create", key, value))
        self._check_fence()
        if key in self._stored.values:
            raise Conflict(f"{key} exists")
        return self._write(key, value)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        self._called(Call("update", key, value, revision))
        self._check_fence()
        found = self._stored.values.get(key)
        if found is None or found[1] != revision:
            raise Conflict(f"{key} is not at revision {revision}")
        return self._write(key, value)

    async def put(self, key: str, value: bytes) -> int:
        self._called(Call("put", key, value))
        self._check_fence()
        return self._write(key, value)

    async def delete(self, key: str) -> None:
        self._called(Call("delete", key))
        self._check_fence()
        self._stored.revision += 1
        self._stored.values.pop(key, None)
        self._reply()

    async def entries(self, prefix: str = "") -> list[Entry]:
        self._called(Call("entries", prefix))
        return [Entry(key, *found) for key, found in self._stored.values.items() if key.startswith(prefix)]

    def _called(self, call: Call) -> None:
        self.calls.append(call)
        error, self.next_error = self.next_error, None
        if error is not None:
            raise error

    def _check_fence(self) -> None:
        # A MemoryLease knows what the store knows; any other lease is believed.
        if self._lease is not None and not getattr(self._lease, "confirmed", self._lease.held):
            raise NotLeader("the lease is not ours")

    def _write(self, key: str, value: bytes) -> int:
        if not value:
            raise ValueError(f"{key}: an empty value means deleted")
        self._stored.revision += 1
        self._stored.values[key] = (value, self._stored.revision)
        self._reply()
        return self._stored.revision

    def _reply(self) -> None:
        error, self.lost_reply = self.lost_reply, None
        if error is not None:
            raise error
