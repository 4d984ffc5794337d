"""Build an aiohttp application from a route table: host check, authentication, errors, audit, OpenAPI."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.typedefs import Middleware

from secbeat.api import openapi
from secbeat.api.requests import ANONYMOUS, PRINCIPAL, ApiError, fail
from secbeat.api.routes import Route
from secbeat.auth import FailureLimiter, Principal, TokenBook
from secbeat.errors import SecbeatError

log = logging.getLogger("api")

AuditHook = Callable[[web.Request, Principal, int], Awaitable[None]]
TokenCheck = Callable[[str], Principal | None]
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})


def build_app(
    title: str,
    routes: Sequence[Route],
    *,
    tokens: TokenBook | TokenCheck,
    allowed_hosts: Sequence[str] = (),
    max_body: int = 64 * 1024,
    on_audit: AuditHook | None = None,
) -> web.Application:
    """An application that answers ``routes``, ``/api/openapi.json`` and ``/docs``.

    Args:
        title: names the service in the document and the docs page.
        tokens: how a bearer token becomes a caller.
        allowed_hosts: accepted Host names besides loopback names and addresses.
        max_body: bytes; larger bodies are refused before they are read.
        on_audit: called after each request on a route with ``changes``, with the caller and the status.
    """
    check = tokens.check if isinstance(tokens, TokenBook) else tokens
    document = openapi.document(title, routes)
    table = {(route.method, route.path): route for route in routes}

    async def describe(_request: web.Request) -> web.Response:
        return web.json_response(document)

    async def docs(_request: web.Request) -> web.Response:
        return web.Response(text=openapi.page(document), content_type="text/html")

    app = web.Application(
        client_max_size=max_body,
        middlewares=[_errors(table), _host_check(frozenset(allowed_hosts)), _authenticate(table, check, on_audit)],
    )
    for route in routes:
        if route.method == "GET":
            app.router.add_get(route.path, route.handler)
        else:
            app.router.add_route(route.method, route.path, route.handler)
    app.router.add_get("/api/openapi.json", describe)
    app.router.add_get("/docs", docs)
    return app


def _route_of(table: dict[tuple[str, str], Route], request: web.Request) -> Route | None:
    resource = request.match_info.route.resource
    if resource is None:
        return None
    method = "GET" if request.method == "HEAD" else request.method
    return table.get((method, resource.canonical))


def _errors(table: dict[tuple[str, str], Route]) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = _route_of(table, request)
        try:
            return await handler(request)
        except SecbeatError as error:
            if isinstance(error, ApiError) is False and error.status >= 500:
                log.warning("%s %s: %s", request.method, request.path, error, extra={"action": "request_failed"})
            return _answer(route, error, getattr(error, "headers", {}))
        except web.HTTPException as error:
            code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE"}.get(error.status)
            if code is None:
                raise
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return _answer(route, ApiError(code, error.status, f"{request.method} {request.path}"), headers)
        except Exception:
            log.exception("%s %s failed", request.method, request.path, extra={"action": "request_failed"})
            return _answer(route, ApiError("INTERNAL", 500, f"{request.method} {request.path}"), {})

    return middleware


def _answer(route: Route | None, error: SecbeatError, headers: dict[str, str]) -> web.Response:
    if route is not None and route.legacy:
        # The original answers 422 with a line of text and everything else with an empty body.
        text = error.why if error.status == 422 else None
        return web.Response(status=error.status, text=text, headers=headers)
    return web.json_response(
        error.problem(), status=error.status, headers=headers, content_type="application/problem+json"
    )


def _host_check(allowed: frozenset[str]) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = _host_name(request.headers.get("Host", ""))
        if not (name in allowed or name == "localhost" or _is_address(name) or request.path in _OPEN_PATHS):
            fail("HOST_REFUSED", 403, f"Host is {name[:100]!r}")
        return await handler(request)

    return middleware


def _host_name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    # DNS rebinding needs a name; whoever dials an address reaches what the listen address allows.
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def from_loopback(request: web.Request) -> bool:
    """Whether the TCP peer is this machine (no header is asked)."""
    try:
        return ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def _authenticate(table: dict[tuple[str, str], Route], check: TokenCheck, on_audit: AuditHook | None) -> Middleware:
    limiter = FailureLimiter()

    def identify(request: web.Request, route: Route) -> Principal:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if route.scope is None:
            return ANONYMOUS
        if scheme.lower() == "bearer" and token:
            address = request.remote or ""
            if limiter.blocked(address):
                fail("TOO_MANY_FAILURES", 429, f"from {address}", headers={"Retry-After": "60"})
            found = check(token.strip())
            if found is not None and not found.may(route.scope):
                fail("NOT_AUTHORISED", 403, f"{found.name} has scope {found.scope}, this needs {route.scope}")
            if found is not None:
                return found
            limiter.failed(address)
        elif route.loopback_open and from_loopback(request):
            return ANONYMOUS
        return fail("NOT_AUTHENTICATED", 401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = _route_of(table, request)
        if route is None:
            return await handler(request)
        caller = identify(request, route)
        request[PRINCIPAL] = caller
        if on_audit is None or not route.changes:
            return await handler(request)
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except (SecbeatError, web.HTTPException) as error:
            status = error.status
            raise
        finally:
            await on_audit(request, caller, status)

    return middleware
