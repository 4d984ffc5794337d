"""The blocklist on the wire: the original's two routes, and the versioned snapshot that our nodes follow."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from secbeat.wire.base import Count, Moment, Record, Wire

DEFAULT_TTL_SECONDS = 3600
MAX_TTL_SECONDS = 10 * 365 * 86400


class BlockRequest(Wire):
    """``POST /api/v1/rules/block_ip``; ``ip`` may also be a network (``203.0.113.0/24``)."""

    ip: str = Field(max_length=64)
    reason: str = Field(max_length=500)
    ttl_seconds: int | None = Field(None, ge=1, le=MAX_TTL_SECONDS, description="Default 3600.")
    metadata: Any = None


class BlockAnswer(Wire):
    """The original's answer, 200 whether it worked or not."""

    success: bool
    message: str
    command_id: str | None


class BlockedStats(Wire):
    """Counts of ``GET /api/v1/rules/blocked_ips``."""

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
    ``removed`` what left. An entry ends at its ``expires_at`` whether or not a later snapshot says so.
    """

    version: Count
    complete: bool
    since: Count | None = None
    blocked: list[BlockedRule]
    removed: list[str] = Field(default_factory=list)


class BlocklistNotice(Record):
    """``secbeat.cmd.<node_id>.blocklist``: there is another version; fetch the snapshot."""

    version: Count
