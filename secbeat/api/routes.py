"""A route as data: from one table come router, authorisation, checks, audit and OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from secbeat.api.parameters import Parameter, flag
from secbeat.auth import Scope
from secbeat.wire.base import Wire

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer beside the success; ``response`` None: problem+json from 400 on, else what the success has."""

    description: str
    response: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path.

    Args:
        scope: the token's scope; None: open to everybody.
        loopback_open: loopback peers need no token (the original's routes).
        legacy: errors are the original's bare statuses, unknown parameters are ignored.
        changes: an audit event is written.
        signed: the webhook signature headers are the authentication.
        request: the body, a wire model or a union of them; ``optional_body``: it may be absent.
        response: what a success (``status``) holds; None: no body, unless ``media`` says of which type it is.
        query: name of each query parameter and what it takes; a plain text is the description of a text.
        answers: statuses that do not follow from the rest (``openapi.statuses``), and what they mean.
        headers: of a success, beside those that every answer has.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    scope: Scope | None
    loopback_open: bool = False
    request: Any = None
    optional_body: bool = False
    response: Any = None
    media: str | None = None
    status: int = 200
    changes: bool = False
    signed: bool = False
    legacy: bool = False
    query: Mapping[str, str | Parameter] = field(default_factory=dict)
    answers: Mapping[int, str | Answer] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The query parameters."""
        return {name: Parameter(one) if isinstance(one, str) else one for name, one in self.query.items()}


def plain_path(path: str) -> str:
    """A route's path with ``{name:regex}`` as ``{name}``: as OpenAPI has it, and as aiohttp names the resource."""
    return re.sub(r"\{(\w+):[^/]*\}", r"{\1}", path)


class Health(Wire):
    """``GET /healthz``."""

    status: Literal["ok"] = "ok"


class Readiness(Wire):
    """``GET /readyz``; ``checks`` when something is not ready, or with ``?verbose``."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str] | None = None


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
        Route(
            method="GET", path="/healthz", handler=healthz, summary="The process answers", scope=None, response=Health
        ),
        Route(
            method="GET",
            path="/readyz",
            handler=readyz,
            summary="It can do its work; 503 names what is not",
            scope=None,
            response=Readiness,
            query={"verbose": flag("Name all checks")},
            answers={503: Answer("Something is not ready", Readiness)},
        ),
    ]
