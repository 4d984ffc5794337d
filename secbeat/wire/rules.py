"""The blocklist on the wire: the original's two routes, and the versioned snapshot that our nodes follow."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from pydantic import BeforeValidator, Field

from secbeat.wire.base import VERSION, Count, Moment, Record, Wire

DEFAULT_TTL_SECONDS = 3600
MAX_TTL_SECONDS = 10 * 365 * 86400


def _as_written(value: object) -> object:
    """The original takes a JSON integer for a number of seconds: no text, no fraction, no boolean."""
    if value is not None and type(value) is not int:
        raise ValueError("must be a whole number of seconds")
    return value


class BlockRequest(Wire):
    """``POST /api/v1/rules/block_ip``; ``ip`` may also be a network (``203.0.113.0/24``)."""

    ip: str = Field(max_length=64)
    reason: str = Field(max_length=500)
    ttl_seconds: Annotated[int | None, BeforeValidator(_as_written)] = Field(
        None,
        ge=1,
        le=MAX_TTL_SECONDS,
        description="Whole seconds; absent or null: 3600. Ten years is the longest.",
    )
    metadata: Any = None


class BlockAnswer(Wire):
    """The original's answer, 200 whether it worked or not."""

    success: bool
    message: str
    command_id: str | None


class BlockedStats(Wire):
    """Counts of ``GET /api/v1/rules/blocked_ips``: of the whole list, whatever page or filter was asked for."""

    total_blocked_ips: Count
    manual_blocks: Count
    auto_blocks: Count


class BlockedInfo(Wire):
    """What the original shows of one entry."""

    blocked_at: Moment
    blocked_by: str
    metadata: Any
    reason: str
    ttl_seconds: int | None


class BlockedIps(Wire):
    """``GET /api/v1/rules/blocked_ips``: each entry is an array of two."""

    blocked_ips: list[tuple[str, BlockedInfo]]
    stats: BlockedStats


class BlockedRule(Wire):
    """What a node needs of one entry."""

    ip: str = Field(max_length=64, description="An address or a network, in its canonical form.")
    expires_at: Moment


class RulesSnapshot(Record):
    """``GET /api/v1/rules/snapshot?since=V``.

    ``complete``: ``blocked`` is the whole list. Otherwise it holds what was added or prolonged since ``since``, and
    ``removed`` what left, each in its final state: it leads from any version between ``since`` and ``version`` to
    ``version``. An entry ends at its ``expires_at`` whether or not a later snapshot says so.
    """

    version: Count
    complete: bool
    since: Count | None = None
    blocked: list[BlockedRule]
    removed: list[str] = Field(default_factory=list)


class RuleFrame(msgspec.Struct, frozen=True, gc=False):
    """:class:`BlockedRule`, cheap."""

    ip: Annotated[str, msgspec.Meta(max_length=64)]
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)]


class SnapshotFrame(msgspec.Struct, frozen=True):
    """:class:`RulesSnapshot` as a node reads it: a hundred thousand entries must not hold up its requests."""

    version: Annotated[int, msgspec.Meta(ge=0)]
    complete: bool
    blocked: list[RuleFrame]
    removed: list[str] = []
    v: Annotated[int, msgspec.Meta(le=VERSION)] = VERSION


decode_snapshot = msgspec.json.Decoder(SnapshotFrame).decode
"""Raises msgspec.DecodeError: not a snapshot, or one of a newer version."""


class BlocklistNotice(Record):
    """``secbeat.cmd.<node_id>.blocklist``: there is another version.

    With ``since`` it carries the difference, to be read as that of :class:`RulesSnapshot`; a node below ``since``
    has missed something and fetches the snapshot. Without, every node fetches.
    """

    version: Count
    since: Count | None = None
    blocked: list[BlockedRule] = Field(default_factory=list)
    removed: list[str] = Field(default_factory=list)
