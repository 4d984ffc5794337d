"""One-use join secrets: only a hash is stored, and a secret that was used says so when it comes again."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from secbeat.auth import hash_token, token_matches
from secbeat.store import Bucket, Conflict, Entry
from secbeat.wire.base import Moment, NodeId, OpId, Record

_PREFIX = "join."
_KEEP_USED = timedelta(hours=24)


class StoredSecret(Record):
    """``join.<op_id>`` in bucket ``state``."""

    op_id: OpId
    node_id: NodeId
    sha256: str
    expires_at: Moment
    used_at: Moment | None = None
    boot_id: NodeId | None = Field(None, description="Of the process that used it.")
    nats_public_key: str | None = None
    peer: str = ""


Use = Literal["first", "repeated", "reused", "expired", "wrong"]


class JoinSecrets:
    """Issues and consumes. ``repeated`` is the same process asking again because it lost our answer."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def issue(self, op_id: str, node_id: str, *, now: datetime, ttl_seconds: float) -> tuple[str, datetime]:
        """A fresh secret and its end; any earlier one of this operation ends.

        Raises:
            Unavailable: nothing was issued.
        """
        secret = secrets.token_urlsafe(32)
        expires_at = now + timedelta(seconds=ttl_seconds)
        record = StoredSecret(op_id=op_id, node_id=node_id, sha256=hash_token(secret), expires_at=expires_at)
        await self._bucket.put(_PREFIX + op_id, record.encode())
        return secret, expires_at

    async def consume(
        self,
        *,
        op_id: str,
        node_id: str,
        secret: str,
        boot_id: str,
        nats_public_key: str | None,
        peer: str,
        now: datetime,
    ) -> Use:
        """Use a secret up, by compare-and-set: of two at once one is first.

        Raises:
            Unavailable: not known whether it was used; the same process may ask again.
        """
        for _ in range(5):
            entry = await self._bucket.get(_PREFIX + op_id)
            if entry is None:
                return "wrong"
            stored = StoredSecret.decode(entry.value)
            if not token_matches(secret, stored.sha256) or stored.node_id != node_id:
                return "wrong"
            if stored.used_at is not None:
                same = (stored.boot_id, stored.nats_public_key, stored.peer) == (boot_id, nats_public_key, peer)
                return "repeated" if same and now < stored.expires_at else "reused"
            if now >= stored.expires_at:
                return "expired"
            used = stored.model_copy(
                update={"used_at": now, "boot_id": boot_id, "nats_public_key": nats_public_key, "peer": peer}
            )
            try:
                await self._bucket.update(entry.key, used.encode(), entry.revision)
            except Conflict:
                continue  # somebody was faster: look at what is there now
            return "first"
        return "wrong"

    async def prune(self, *, now: datetime) -> None:
        """Forget secrets that ended a day ago; until then a second use is still an alarm."""
        for entry in await self._bucket.entries(_PREFIX):
            if _ended(entry, now):
                await self._bucket.delete(entry.key)


def _ended(entry: Entry, now: datetime) -> bool:
    return StoredSecret.decode(entry.value).expires_at + _KEEP_USED < now
