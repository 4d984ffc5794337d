"""How a request that fails is answered: problem+json on our routes, the original's bare statuses on its routes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from secbeat.api.requests import ApiError
from secbeat.api.routes import Route, plain_path
from secbeat.errors import SecbeatError
from secbeat.store import Conflict, NotLeader, Unavailable

log = logging.getLogger("api")

_HTTP_CODES = {400: "REQUEST_MALFORMED", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE"}
_RETRY_SOON = {"Retry-After": "2"}


class RouteTable:
    """The route that a request is on, also when its method is wrong."""

    def __init__(self, routes: Iterable[Route]) -> None:
        routes = list(routes)
        self._by_template = {(route.method, plain_path(route.path)): route for route in routes}
        self._legacy = [(_pattern(route.path), route) for route in routes if route.legacy]

    def of(self, request: web.Request) -> Route | None:
        """The route, or None (unknown path or method)."""
        resource = request.match_info.route.resource
        if resource is None:
            return None
        method = "GET" if request.method == "HEAD" else request.method
        return self._by_template.get((method, resource.canonical))

    def is_legacy(self, request: web.Request) -> bool:
        """Whether the path, whatever the method, is one of the original's."""
        return any(pattern.fullmatch(request.path) for pattern, _ in self._legacy)


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{\w+\}", plain_path(template))
    return re.compile("[^/]+".join(re.escape(part) for part in parts))


def errors(table: RouteTable) -> Middleware:
    """The outermost middleware: whatever a handler raises becomes an answer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            answer = _as_error(request, error)
            if answer is None:
                raise
            return _answer(answer, legacy=table.is_legacy(request))

    return middleware


def status_of(error: Exception) -> int:
    """The status that :func:`errors` answers with, for the audit."""
    if isinstance(error, SecbeatError | web.HTTPException):
        return error.status
    return 503 if isinstance(error, Unavailable) else 409 if isinstance(error, Conflict) else 500


def _as_error(request: web.Request, error: Exception) -> SecbeatError | None:
    """The error to answer with; None: an HTTPException that answers for itself, or nobody is there to be answered."""
    where = f"{request.method} {request.path}"
    if isinstance(error, SecbeatError):
        if error.status >= 500:
            log.warning("%s: %s", where, error, extra={"action": "request_failed"})
        return error
    if isinstance(error, web.HTTPException):
        code = _HTTP_CODES.get(error.status)
        if code is None:
            return None
        return _with(ApiError(code, error.status, where), {k: v for k, v in error.headers.items() if k == "Allow"})
    if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
        return None
    if isinstance(error, Unavailable | Conflict):
        return _store_error(where, error)
    log.error("%s failed", where, exc_info=error, extra={"action": "request_failed"})
    return ApiError("INTERNAL", 500, where)


def _store_error(where: str, error: Unavailable | Conflict) -> ApiError:
    if isinstance(error, Conflict):
        return ApiError("CHANGED_MEANWHILE", 409, str(error) or "somebody else changed the same record just now")
    if isinstance(error, NotLeader):
        return _with(ApiError("NOT_LEADER", 503, str(error) or "the lease is held elsewhere"), _RETRY_SOON)
    log.warning("%s: the store does not answer: %s", where, error, extra={"action": "store_unavailable"})
    return _with(ApiError("STATE_UNAVAILABLE", 503, str(error) or "no confirmation"), _RETRY_SOON)


def _with(error: ApiError, headers: dict[str, str]) -> ApiError:
    error.headers.update(headers)
    return error


def problem(error: SecbeatError) -> web.Response:
    """The error as problem+json."""
    return web.json_response(
        error.problem(),
        status=error.status,
        headers=getattr(error, "headers", {}),
        content_type="application/problem+json",
    )


def _answer(error: SecbeatError, *, legacy: bool) -> web.Response:
    if not legacy:
        return problem(error)
    headers: dict[str, str] = getattr(error, "headers", {})
    return web.Response(status=error.status, text=_original_text(error), headers=headers)


def _original_text(error: SecbeatError) -> str | None:
    """The original has one line of text for a body that it cannot use, and an empty body for everything else."""
    if error.status == 415:
        return "Expected request with `Content-Type: application/json`"
    if error.status == 400:
        malformed = error.code == "BODY_MALFORMED"
        return f"Failed to parse the request body as JSON: {error.why}" if malformed else error.why
    if error.status == 422:
        return f"Failed to deserialize the JSON body into the target type: {error.why}"
    return None
