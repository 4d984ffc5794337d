"""The streams and buckets that we keep in JetStream: made on first use, never changed behind an operator's back."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from typing import Any

from secbeat import subjects
from secbeat.bus.link import Link, Refused
from secbeat.store import Unavailable

log = logging.getLogger("bus")

MIB = 1024**2
_SECOND = 1_000_000_000
DEDUP_SECONDS = 600
TOMBSTONE_SECONDS = 3600
# What JetStream answers when a stream's reservation does not fit on its disk.
_NO_ROOM = {10023, 10028, 10047}
_IN_USE = 10058
_BUCKET = re.compile(r"^[a-z][a-z0-9_-]{0,31}$")


def bucket(name: str, replicas: int) -> dict[str, Any]:
    """A key-value bucket. nats-py's own way to make one cannot ask for atomic batches.

    When full it refuses new writes (``discard: new``): state is never dropped to make room.
    """
    if not _BUCKET.fullmatch(name):
        raise ValueError(f"not a bucket name: {name!r}")
    return {
        **_stream(f"KV_{name}", [f"$KV.{name}.>"], replicas, max_bytes=256 * MIB),
        "max_msgs_per_subject": 5,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "allow_direct": False,  # a direct get may come from a follower that lags behind
        "deny_delete": True,
    }


def work_queue(replicas: int) -> dict[str, Any]:
    """The queue of jobs. When full it refuses; the sender's reconcile loop tries again."""
    return {
        **_stream(subjects.JOBS_STREAM, [subjects.QUEUE_SUBJECTS], replicas, max_bytes=32 * MIB),
        "retention": "workqueue",
        "discard": "new",
        "max_age": 7 * 86400 * _SECOND,
        "duplicate_window": DEDUP_SECONDS * _SECOND,
    }


def ledger(max_age_days: float, replicas: int) -> dict[str, Any]:
    """Decisions, operations, audit. When full the oldest go: history never blocks state."""
    return {
        **_stream(subjects.LEDGER_STREAM, [subjects.LEDGER_SUBJECTS], replicas, max_bytes=512 * MIB),
        "discard": "old",
        "max_age": int(max_age_days * 86400) * _SECOND,
        "allow_direct": False,
    }


def _stream(name: str, subject: list[str], replicas: int, *, max_bytes: int) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": subject,
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": max_bytes,
        "max_msg_size": -1,
        "max_age": 0,
    }


async def ensure(link: Link, config: dict[str, Any]) -> None:
    """Make the stream if it is absent; one that exists stays as it is.

    Where the disk has no room for the whole reservation, a quarter of it is asked for.

    Raises:
        Unavailable: JetStream refuses or does not answer.
    """
    name = config["name"]
    try:
        await link.call(f"$JS.API.STREAM.INFO.{name}", b"")
        return
    except Refused:
        pass
    try:
        await _create(link, config)
    except Refused as refusal:
        if refusal.code not in _NO_ROOM:
            raise Unavailable(f"stream {name}: {refusal}") from None
        log.warning("Little disk for NATS: stream %s gets a quarter of its size", name, extra={"action": "nats_small"})
        try:
            await _create(link, {**config, "max_bytes": config["max_bytes"] // 4})
        except Refused as again:
            raise Unavailable(f"stream {name}: {again}") from None


async def usage(link: Link, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Bytes that each stream holds and may hold (0: without limit); one that does not answer is left out."""
    found = {}
    for name in names:
        try:
            info = await link.call(f"$JS.API.STREAM.INFO.{name}", b"")
            found[name] = int(info["state"]["bytes"]), max(int(info["config"]["max_bytes"]), 0)
        except (Refused, Unavailable):
            continue
    return found


async def _create(link: Link, config: dict[str, Any]) -> None:
    try:
        await link.call(f"$JS.API.STREAM.CREATE.{config['name']}", json.dumps(config).encode())
    except Refused as refusal:
        if refusal.code != _IN_USE:  # another process made it in between, perhaps with a smaller size
            raise
