"""Build an aiohttp application from a route table: host check, authentication, errors, audit, headers, OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from secbeat.api import openapi, page
from secbeat.api.answering import RouteTable, errors, status_of
from secbeat.api.conditional import unless_known
from secbeat.api.guarding import Guard, HostCheck, TokenCheck, check_page
from secbeat.api.headers import security_headers
from secbeat.api.parameters import QUERY, read_query
from secbeat.api.requests import ANONYMOUS, PRINCIPAL, ApiError
from secbeat.api.routes import Route
from secbeat.auth import FailureLimiter, Principal, TokenBook
from secbeat.wire.base import Wire

AuditHook = Callable[[web.Request, Principal, int], Awaitable[None]]

_NOT_AUDITED = 429
_UNLISTED = frozenset({"/api/openapi.json", "/docs"})


def build_app(
    title: str,
    routes: Sequence[Route],
    *,
    tokens: TokenBook | TokenCheck,
    allowed_hosts: Sequence[str] = (),
    max_body: int = 64 * 1024,
    on_audit: AuditHook | None = None,
    limiter: FailureLimiter | None = None,
    examples: Mapping[type[Wire], Any] | None = None,
) -> web.Application:
    """An application that answers ``routes``, ``/api/openapi.json`` and ``/docs``.

    Args:
        title: names the service in the document and the docs page.
        tokens: how a bearer token becomes a caller.
        allowed_hosts: accepted Host names besides loopback names and addresses.
        max_body: bytes; larger bodies are refused before they are read whole.
        on_audit: called after each request on a route with ``changes``, with the caller and the status.
        limiter: counts failed logins; a fresh one by default.
        examples: a request or an answer of each model, for the description.
    """
    document = openapi.document(title, routes, examples)
    table = RouteTable(routes)

    async def describe(request: web.Request) -> web.StreamResponse:
        return unless_known(request, web.json_response(document))

    async def docs(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Security-Policy": page.CSP}
        return unless_known(
            request, web.Response(text=page.render(document), content_type="text/html", headers=headers)
        )

    hosts, guard = HostCheck(allowed_hosts), Guard(tokens, limiter=limiter)
    app = web.Application(
        client_max_size=max_body,
        middlewares=[errors(table), _guarded(table, hosts, guard, on_audit)],
    )
    for route in routes:
        if route.method == "GET":
            app.router.add_get(route.path, route.handler)
        else:
            app.router.add_route(route.method, route.path, route.handler)
    app.router.add_get("/api/openapi.json", describe)
    app.router.add_get("/docs", docs)
    app.on_response_prepare.append(security_headers)
    return app


async def _unlisted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is in no table: the two pages about the table, and what the router refuses by itself.

    Raises:
        RuntimeError: anything else, or a path that the table spells otherwise than the router would be open to all.
    """
    if request.match_info.http_exception is None and request.path not in _UNLISTED:
        raise RuntimeError(f"{request.path} has a handler and no route")
    return await handler(request)


def _check_query(request: web.Request, route: Route) -> None:
    """The original ignores what it does not know; ours refuses it, or a misspelt filter would show everything."""
    if route.query or not route.legacy:
        request[QUERY] = read_query(request, route.parameters, ignore_unknown=route.legacy)


def _guarded(table: RouteTable, hosts: HostCheck, guard: Guard, on_audit: AuditHook | None) -> Middleware:
    async def audit(request: web.Request, route: Route, caller: Principal, status: int) -> None:
        # Beyond the limit of failed logins nothing is recorded, or a stranger could fill the audit.
        if on_audit is not None and route.changes and status != _NOT_AUDITED:
            await on_audit(request, caller, status)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts.check(request)
        check_page(request)
        route = table.of(request)
        if route is None:
            return await _unlisted(request, handler)
        try:
            caller = guard.caller(request, route)
        except ApiError as error:
            await audit(request, route, request.get(PRINCIPAL, ANONYMOUS), error.status)
            raise
        request[PRINCIPAL] = caller
        if not route.changes:
            _check_query(request, route)
            response = await handler(request)
            return response if route.legacy else unless_known(request, response)
        try:
            _check_query(request, route)
            response = await handler(request)
        except Exception as error:
            await audit(request, route, caller, status_of(error))
            raise
        await audit(request, route, caller, response.status)
        return response

    return middleware
