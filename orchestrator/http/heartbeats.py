"""The original's heartbeat over HTTP, twice: the whole handler, and a fast lane for the plain success.

Only nodes that registered in the original's form beat here, and only from ``legacy_nodes``. A node that joined with a
secret beats on NATS under its own login; over HTTP anybody could beat in its name.
"""

from __future__ import annotations

import json

from aiohttp import web
from pydantic import ValidationError

from orchestrator.fleet import Node
from orchestrator.http.context import Context
from secbeat.api import Route, fail, parse_body, read_raw
from secbeat.api.fast import EmptyOk, Lane
from secbeat.api.guarding import HostCheck
from secbeat.api.requests import ApiError
from secbeat.wire.heartbeat import LegacyHeartbeat

PATH = "/api/v1/nodes/heartbeat"
_MAX_FAST_BODY = 8192


class Heartbeats:
    """Handler of ``POST /api/v1/nodes/heartbeat``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._registry = context.registry

    async def beat(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            fail("CONTENT_TYPE", 415, f"Content-Type is {request.headers.get('Content-Type', 'absent')!r}")
        raw = await read_raw(request)
        try:
            heartbeat = parse_body(raw, LegacyHeartbeat, strict=True)
        except ApiError as error:
            if error.status == 422:
                self._touch(raw, request.remote)
            raise
        node = self._registry.get(heartbeat.node_id)
        if node is None:
            node = await self._adopt(heartbeat, request.remote)
        if not self._may_beat(node, request.remote):
            fail("NOT_AUTHENTICATED", 401, "only nodes of the original's form beat here, and from legacy_nodes")
        self._registry.on_legacy(heartbeat, unit=self._context.legacy_unit(node.pool))
        return web.Response()

    async def _adopt(self, heartbeat: LegacyHeartbeat, peer: str | None) -> Node:
        """The original's node cannot register again, so one that we forgot is taken in."""
        adopted = await self._context.control.adopt(heartbeat.node_id, peer=peer or "")
        node = self._registry.get(heartbeat.node_id) if adopted else None
        if node is None:
            # Counts it as unknown.
            self._registry.on_legacy(heartbeat, unit="percent")
            fail("NOT_FOUND", 404, f"there is no node {heartbeat.node_id}")
        return node

    def _may_beat(self, node: Node, peer: str | None) -> bool:
        return node.legacy and self._context.trusted(peer)

    def _touch(self, raw: bytes, peer: str | None) -> None:
        """A body that cannot be applied is still proof of life."""
        try:
            node = self._registry.get(str(json.loads(raw).get("node_id")))
        except (ValueError, AttributeError, RecursionError):
            return
        if node is not None and self._may_beat(node, peer):
            self._registry.touch(node.node_id)

    def lane(self, hosts: HostCheck) -> Lane:
        """The plain success, with every check that the whole way makes; None for whatever is not plain."""
        done = EmptyOk()
        registry, trusted, unit = self._registry, self._context.trusted, self._context.legacy_unit

        async def beat(request: web.BaseRequest) -> web.StreamResponse | None:
            headers = request.headers
            if (
                headers.get("Content-Type") != "application/json"
                or "Expect" in headers
                or not 0 < (request.content_length or 0) <= _MAX_FAST_BODY
                or not hosts.allows(headers.get("Host", ""))
                or not trusted(request.remote)
                or not done.fits(request)
            ):
                return None
            try:
                heartbeat = LegacyHeartbeat.model_validate_json(await request.read(), strict=True)
            except (ValidationError, web.HTTPException):
                return None
            node = registry.get(heartbeat.node_id)
            if node is None or not node.legacy:
                return None
            registry.on_legacy(heartbeat, unit=unit(node.pool))
            return done

        return beat


def routes(heartbeats: Heartbeats) -> list[Route]:
    """The route of this module."""
    return [
        # Not audited: it is a report of what is, and there are thousands of them per second.
        Route(method="POST", path=PATH, handler=heartbeats.beat, scope=None, legacy=True, request=LegacyHeartbeat,
              answers={401: "Not from legacy_nodes", 404: "There is no such node", 503: "Adopting needs the store"},
              summary="The original's heartbeat; open to legacy_nodes"),
    ]  # fmt: skip
