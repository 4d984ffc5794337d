"""A route as data: from one table come the router, the authorisation, the audit and the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from secbeat.auth import Scope
from secbeat.wire.base import Wire

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path.

    ``scope`` None: open to everybody. ``loopback_open``: loopback peers need no token (the original's routes).
    ``legacy``: errors are the original's bare statuses. ``changes``: an audit event is written. ``query``: name of each
    query parameter and what it does.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    scope: Scope | None
    loopback_open: bool = False
    request: type[Wire] | None = None
    response: Any = None
    status: int = 200
    changes: bool = False
    legacy: bool = False
    query: Mapping[str, str] = field(default_factory=dict)


def plain_path(path: str) -> str:
    """A route's path with ``{name:regex}`` as ``{name}``: as OpenAPI has it, and as aiohttp names the resource."""
    return re.sub(r"\{(\w+):[^/]*\}", r"{\1}", path)


def health_routes(checks: Callable[[], Mapping[str, str | None]]) -> list[Route]:
    """``/healthz`` (200 while the process answers) and ``/readyz``.

    Args:
        checks: name of a dependency → None when it is well, else one sentence.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        found = checks()
        ready = all(sentence is None for sentence in found.values())
        body: dict[str, Any] = {"status": "ready" if ready else "not ready"}
        if not ready or "verbose" in request.query:
            body["checks"] = {name: sentence or "ok" for name, sentence in found.items()}
        return web.json_response(body, status=200 if ready else 503)

    return [
        Route(method="GET", path="/healthz", handler=healthz, summary="The process answers", scope=None),
        Route(
            method="GET",
            path="/readyz",
            handler=readyz,
            summary="It can do its work; 503 names what is not",
            scope=None,
        ),
    ]
