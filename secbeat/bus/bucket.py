"""Key-value buckets on JetStream, plain and fenced.

A key is the last message of its subject, its revision that message's sequence. Deleting writes a marker that removes
the key's history and goes away by itself after an hour, so that the keys of ended operations cost nothing for ever.

Fencing: every write says which revision of the key ``leader`` it was made under, and the server compares. ``leader`` is
written only when leadership changes hands, so a write of anyone but the latest leader is refused, whatever it believes.
A write without a compare-and-set of its own carries this condition itself. One with (``create``, ``update``) is an
atomic batch of two messages, because a message can carry one condition only: the second goes to the key ``fence``,
which is always empty and therefore never listed. Writes made at the same time share a batch (``secbeat.bus.group``).
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from secbeat.bus.group import EXPECTED, FENCE_KEY, Denied, Fence, GroupCommit
from secbeat.bus.link import Link, Refused, too_large
from secbeat.bus.scan import Scan
from secbeat.bus.streams import TOMBSTONE_SECONDS
from secbeat.store import Conflict, Entry, Unavailable
from secbeat.subjects import LEADER_KEY

LEASE_KEY = "lease"
REMOVE = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": str(TOMBSTONE_SECONDS)}
_WRONG_SEQUENCE = {10071, 10164}
_NO_MESSAGE = 10037
_KEY = re.compile(r"^[A-Za-z0-9_=/-]+(\.[A-Za-z0-9_=/-]+)*$")
_TRIES = 3


class Store:
    """Raw access to one bucket's messages: what buckets and the lease have in common."""

    def __init__(self, link: Link, name: str, *, timeout: float | None = None) -> None:
        self.link, self.stream, self._prefix = link, f"KV_{name}", f"$KV.{name}."
        self._timeout = timeout

    def subject(self, key: str) -> str:
        """The subject of a key. Raises ValueError for what is no key."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key: {key[:64]!r}")
        return self._prefix + key

    def check_size(self, key: str, value: bytes) -> None:
        """Raises ValueError for a value that is larger than the server takes."""
        if len(value) > self.link.client.max_payload:
            raise too_large(self.subject(key), value)

    async def last(self, key: str) -> tuple[bytes, int]:
        """Value and sequence of a key's last message; an empty value is a deleted key, sequence 0 none at all.

        Raises:
            Unavailable: no answer.
        """
        body = json.dumps({"last_by_subj": self.subject(key)}).encode()
        try:
            answer = await self.link.call(f"$JS.API.STREAM.MSG.GET.{self.stream}", body, timeout=self._timeout)
        except Refused as refusal:
            if refusal.code == _NO_MESSAGE:
                return b"", 0
            raise Unavailable(f"{self.stream}: {refusal}") from None
        message = answer["message"]
        value = base64.b64decode(message.get("data") or "")
        headers = base64.b64decode(message.get("hdrs") or "")
        return (b"" if b"KV-Operation:" in headers or b"Nats-Marker-Reason:" in headers else value), message["seq"]

    async def write(self, key: str, value: bytes, headers: Mapping[str, str]) -> int:
        """One message; returns its sequence.

        Raises:
            Conflict: a condition in ``headers`` does not hold.
            Denied: refused for another reason.
            Unavailable: not confirmed.
        """
        return int((await self._call(key, value, headers))["seq"])

    async def batch(self, *writes: tuple[str, bytes, Mapping[str, str]]) -> list[int]:
        """Several messages, all or none; returns their sequences. Raises as :meth:`write`."""
        batch_id = secrets.token_hex(8)
        for number, (key, value, headers) in enumerate(writes[:-1], 1):
            marked = {**headers, "Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
            if not await self.link.publish(self.subject(key), value, headers=marked):
                raise Unavailable("not connected to NATS")
        key, value, headers = writes[-1]
        commit = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(len(writes)), "Nats-Batch-Commit": "1"}
        last = int((await self._call(key, value, {**headers, **commit}))["seq"])
        return list(range(last - len(writes) + 1, last + 1))

    async def remove(self, key: str, headers: Mapping[str, str]) -> None:
        """Delete a key and its history. Raises as :meth:`write`."""
        await self._call(key, b"", {**headers, **REMOVE})

    async def _call(self, key: str, value: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        try:
            return await self.link.call(self.subject(key), value, headers=dict(headers) or None, timeout=self._timeout)
        except Refused as refusal:
            if refusal.code in _WRONG_SEQUENCE:
                raise Conflict(f"{key}: {refusal}") from None
            raise Denied(f"{self.stream}: {refusal}") from None

    async def present(self, prefix: str) -> list[Entry]:
        """All present keys that start with ``prefix``; complete or Unavailable."""
        for _ in range(_TRIES):
            subjects = await self._count(prefix)
            scan = await Scan.open(self.link, self.stream, self._filter(prefix), deliver_policy="last_per_subject")
            try:
                messages = await scan.read()
            finally:
                await scan.close()
            newest = {message.subject: message for message in messages}
            # The server has announced too few before (nats-io/nats-server#4824); a marker may also just have expired.
            if len(newest) >= subjects:
                entries = (
                    Entry(m.subject[len(self._prefix) :], m.payload, m.sequence)
                    for m in newest.values()
                    if m.payload and "KV-Operation" not in m.headers and "Nats-Marker-Reason" not in m.headers
                )
                return [entry for entry in entries if entry.key.startswith(prefix)]
        raise Unavailable(f"{self.stream}: {subjects} keys expected, {len(newest)} came")

    async def _count(self, prefix: str) -> int:
        """How many subjects the reading must return at least."""
        body = json.dumps({"subjects_filter": self._filter(prefix)}).encode()
        try:
            answer = await self.link.call(f"$JS.API.STREAM.INFO.{self.stream}", body)
        except Refused as refusal:
            raise Unavailable(f"{self.stream}: {refusal}") from None
        return len(answer["state"].get("subjects") or {})

    def _filter(self, prefix: str) -> str:
        tokens = prefix.split(".")[:-1]
        return self._prefix + ".".join([*tokens, ">"])


class NatsBucket:
    """A Bucket. With a ``fence`` every write needs the lease."""

    def __init__(self, store: Store, fence: Fence | None = None) -> None:
        self._store = store
        self._group = None if fence is None else GroupCommit(store, fence)

    async def get(self, key: str) -> Entry | None:
        value, revision = await self._store.last(key)
        return Entry(key, value, revision) if value else None

    async def entries(self, prefix: str = "") -> list[Entry]:
        return await self._store.present(prefix)

    async def create(self, key: str, value: bytes) -> int:
        expected = 0
        for _ in range(_TRIES):
            try:
                return await self.update(key, value, expected)
            except Conflict:
                # The marker of a deleted key is in the way: it has to be named as the last message.
                present, last = await self._store.last(key)
                if present or last == expected:
                    raise Conflict(f"{key} exists") from None
                expected = last
        raise Conflict(f"{key} is being written by others")

    async def update(self, key: str, value: bytes, revision: int) -> int:
        self._check(key, value)
        return await self._write(key, value, {EXPECTED: str(revision)})

    async def put(self, key: str, value: bytes) -> int:
        self._check(key, value)
        return await self._write(key, value, {})

    async def delete(self, key: str) -> None:
        self._check(key, b"-")
        await self._write(key, b"", REMOVE)

    async def _write(self, key: str, value: bytes, headers: Mapping[str, str]) -> int:
        return await (self._store if self._group is None else self._group).write(key, value, headers)

    def _check(self, key: str, value: bytes) -> None:
        self._store.subject(key)
        if not value:
            raise ValueError(f"{key}: an empty value means deleted")
        if self._group is not None and key in (LEADER_KEY, LEASE_KEY, FENCE_KEY):
            raise ValueError(f"{key} is the lease's own")
