"""What the handlers work with, and small things that several of them do."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal, TypeVar

from aiohttp import web
from pydantic import Field

from orchestrator.control import Control
from orchestrator.events import EventHub
from orchestrator.fleet import Registry
from orchestrator.http.auditing import Audit
from orchestrator.http.following import Following
from orchestrator.rules import Rules
from secbeat.api import fail
from secbeat.clock import Clock
from secbeat.wire.base import Wire
from secbeat.wire.operations import OperationRecord
from secbeat.wire.pools import PauseRequest, ResumeRequest, ScaleRequest

Network = IPv4Network | IPv6Network
Unit = Literal["percent", "fraction"]
Revised = TypeVar("Revised", ScaleRequest, PauseRequest, ResumeRequest)


@dataclass(frozen=True, kw_only=True)
class Context:
    """The handlers' collaborators.

    ``trusted``: whether a TCP peer lies within ``legacy_nodes``. ``legacy_unit``: unit of CPU in the original's
    heartbeat, by pool. ``webhook_secrets``: those that a status callback may be signed with.
    ``following``: who may read the blocklist's snapshot.
    """

    control: Control
    registry: Registry
    rules: Rules
    events: EventHub
    audit: Audit
    clock: Clock
    trusted: Callable[[str | None], bool]
    legacy_unit: Callable[[str], Unit]
    webhook_secrets: Callable[[], Sequence[str]]
    following: Following


class DrainRequest(Wire):
    """``POST /api/v1/nodes/{id}/drain``; the body may be absent."""

    reason: str = Field("", max_length=500)


class ProtectRequest(Wire):
    """``POST /api/v1/nodes/{id}/protect``: a protected node is never chosen to leave."""

    on: bool


def peers_within(networks: Sequence[Network]) -> Callable[[str | None], bool]:
    """A check of TCP peers, remembered per address: it stands in the heartbeats' way."""

    @lru_cache(maxsize=65536)
    def within(peer: str | None) -> bool:
        try:
            address = ip_address(peer or "")
        except ValueError:
            return False
        return any(address in network for network in networks)

    return within


def node_id_of(request: web.Request, *, original: bool = False) -> str:
    """The node id in the path, in our spelling; every form that the original parses is taken.

    Raises:
        ApiError: not a UUID: 400 on the original's routes, 404 on ours.
    """
    text = request.match_info["node_id"]
    try:
        return str(uuid.UUID(text))
    except ValueError:
        if original:
            fail("NOT_FOUND", 400, f"Invalid URL: UUID parsing failed: {text[:64]!r}")
        fail("NOT_FOUND", 404, f"{text[:64]!r} is not a node id (UUID)")


def with_revision(request: web.Request, body: Revised) -> Revised:
    """The body with the revision that ``If-Match`` or ``if_revision`` demands.

    Raises:
        ApiError: 422, not an ETag of ours, or the two differ.
    """
    header = request.headers.get("If-Match", "*").strip()
    if header == "*":
        return body
    text = header.removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        fail("REVISION_INVALID", 422, f"If-Match is {header[:40]!r}")
    if body.if_revision not in (None, int(text)):
        fail("REVISION_INVALID", 422, f"If-Match is {text}, if_revision is {body.if_revision}")
    return body.model_copy(update={"if_revision": int(text)})


def summary(operation: OperationRecord) -> dict[str, str]:
    """An operation for the audit."""
    return {"op_id": operation.op_id, "action": operation.action, "state": operation.state}
