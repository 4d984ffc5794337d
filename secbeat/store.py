"""What the services need of a store, as Protocols.

``secbeat.bus`` implements them on NATS JetStream, ``secbeat.testing`` in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol


class Conflict(Exception):
    """A compare-and-set lost: the key's revision is not the expected one, or it exists already."""


class Unavailable(Exception):
    """The store did not confirm. The write may or may not have happened; read before trying again."""


class NotLeader(Unavailable):
    """A fenced write was refused: the lease is not (or no longer) ours."""


class Entry(NamedTuple):
    """A key's value and its revision (the compare-and-set token)."""

    key: str
    value: bytes
    revision: int


class Bucket(Protocol):
    """A key-value bucket. Keys are dot-separated; ids in them were checked by ``secbeat.ids``.

    Values are not empty (an empty one means deleted) and at most 1 MB: ValueError otherwise. Reads raise Unavailable.
    Writes made at the same time may be stored together; each stands or falls by its own condition, those of one key
    keep their order, and a cancelled one has either happened or not.
    """

    async def get(self, key: str) -> Entry | None: ...

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that must not exist; returns its revision. Raises Conflict, Unavailable."""
        ...

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Compare-and-set. Raises Conflict, Unavailable."""
        ...

    async def put(self, key: str, value: bytes) -> int:
        """Write whatever is there. Raises Unavailable."""
        ...

    async def delete(self, key: str) -> None:
        """Remove; removing what is absent is no error."""
        ...

    async def entries(self, prefix: str = "") -> list[Entry]:
        """All present keys that start with ``prefix``, in no particular order; complete or Unavailable."""
        ...


class Lease(Protocol):
    """Leadership. ``held`` counts from before the last confirmed renewal was sent."""

    @property
    def held(self) -> bool: ...

    @property
    def epoch(self) -> int: ...


class Work(Protocol):
    """One message of a work queue."""

    op_id: str

    @property
    def deliveries(self) -> int:
        """How often the message has been delivered, this time included."""
        ...

    async def done(self) -> None:
        """Acknowledge: never delivered again."""
        ...

    async def extend(self) -> None:
        """Say that it is still being worked on."""
        ...

    async def again(self, delay_seconds: float) -> None:
        """Give back; delivered again after the delay."""
        ...


class WorkQueue(Protocol):
    """A durable queue of op_ids, shared by any number of consumers."""

    async def put(self, op_id: str) -> None:
        """Enqueue; the same op_id within ten minutes is enqueued once. Raises Unavailable."""
        ...

    async def take(self, timeout_seconds: float) -> Work | None:
        """The next message, or None after the timeout. Raises Unavailable (at once: wait before trying again)."""
        ...


class Ledger(Protocol):
    """An append-only record of decisions, operations and audit events."""

    async def append(self, kind: str, pool: str, record: bytes) -> None:
        """Add a record; ``pool`` is ``_`` where there is none. Raises Unavailable."""
        ...

    def read(self, kind: str, pool: str | None = None, *, newest: int = 100) -> AsyncIterator[bytes]:
        """The newest records, oldest of them first."""
        ...


class Subscription(Protocol):
    """A subscription that can be ended."""

    async def close(self) -> None: ...


class Messaging(Protocol):
    """Core publish and subscribe: at most once, nothing stored."""

    @property
    def connected(self) -> bool: ...

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send; dropped when not connected (nothing is buffered for later)."""
        ...

    async def subscribe(self, subject: str, handler: Callable[[str, bytes], None]) -> Subscription:
        """Call ``handler(subject, payload)`` for each message; it must not block or raise."""
        ...

    async def request(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        """One request, one reply. Raises Unavailable when nobody answers in time."""
        ...

    async def respond(self, subject: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> Subscription:
        """Answer requests on ``subject``."""
        ...
