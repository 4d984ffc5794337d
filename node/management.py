"""The management API on :9999: a token on every path, the guide's terminate, and what the original's node shows."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from node.commands import Commands
from node.dataplane import DataPlane
from node.drain import Drain
from node.load import Sampler
from node.membership import Member
from secbeat import __version__
from secbeat.api import Answer, Route, build_app, fail, read_body, reply
from secbeat.api.guarding import from_loopback
from secbeat.auth import FailureLimiter, Principal, hash_token
from secbeat.clock import Clock, wire_time
from secbeat.wire.control import ResumeRequest, ResumeResponse, TerminateRequest, TerminateResponse

# The original's routes around its packet filter (secbeat-contracts 6), which this data plane does not have.
_ABSENT = (
    ("GET", "/status/waf"), ("POST", "/waf/patterns"), ("DELETE", "/waf/patterns"), ("POST", "/waf/reload"),
    ("GET", "/api/v1/rules"), ("POST", "/api/v1/rules"), ("DELETE", "/api/v1/rules/{id}"), ("GET", "/api/v1/stats"),
    ("GET", "/metrics"), ("POST", "/api/v1/blacklist"), ("DELETE", "/api/v1/blacklist/{ip}"),
    ("POST", "/config/reload"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """What the API shows and acts on."""

    commands: Commands
    drain: Drain
    plane: DataPlane
    sampler: Sampler
    member: Callable[[], Member | None]
    boot_id: str
    clock: Clock
    started: float
    allow_legacy_terminate: bool


def build(facts: Facts, token: Callable[[], str | None]) -> web.Application:
    """The application.

    Args:
        token: the token of this moment; None before a join: then every request is refused.
    """

    def check(given: str) -> Principal | None:
        expected = token()
        if expected is None or not hmac.compare_digest(hash_token(expected), hash_token(given)):
            return None
        return Principal("management", "admin")

    app = build_app("node", _routes(facts), tokens=check, max_body=16 * 1024)
    app.middlewares.insert(0, _guard_everything(check))
    return app


def _guard_everything(check: Callable[[str], Principal | None]) -> Middleware:
    """A 401 on paths that no route has, too: without a token nobody learns what exists here.

    A valid token always passes: whoever guesses from the orchestrator's address must not lock it out.
    """
    limiter = FailureLimiter()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and check(given.strip()) is not None:
            return await handler(request)
        address = request.remote or ""
        if limiter.blocked(address):
            return web.Response(status=429, headers={"Retry-After": "60"})
        if given:
            limiter.failed(address)
        return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})

    return middleware


def _routes(facts: Facts) -> list[Route]:
    control = _Handlers(facts)
    return [
        Route(
            method="POST", path="/control/terminate", handler=control.terminate, scope="operate", changes=True,
            summary="Leave: drain within a grace period, then end", request=TerminateRequest,
            response=TerminateResponse, status=202,
        ),
        Route(
            method="POST", path="/control/resume", handler=control.resume, scope="operate", changes=True,
            summary="Cancel a drain, until the listener closes", request=ResumeRequest, response=ResumeResponse,
        ),
        Route(method="GET", path="/health", handler=control.health, scope="read", summary="The process lives",
              response=dict[str, str]),
        Route(
            method="GET", path="/ready", handler=control.ready, scope="read",
            summary="It takes traffic; 503 while it drains", response=dict[str, Any],
            answers={503: Answer("It drains", dict[str, Any])},
        ),
        Route(method="GET", path="/api/v1/status", handler=control.status, scope="read", summary="State and load",
              response=dict[str, Any]),
        *(
            Route(
                method=method, path=path, handler=_absent, scope="read", summary="Not part of this node", status=501,
                answers={501: "This node has no packet filter and no WAF"},
            )
            for method, path in _ABSENT
        ),
    ]  # fmt: skip


async def _absent(request: web.Request) -> web.Response:
    fail("NODE_NOT_IMPLEMENTED", 501, f"{request.method} {request.path}: this node has no packet filter or WAF")


class _Handlers:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def _lenient(self, request: web.Request) -> bool:
        return self._facts.allow_legacy_terminate or from_loopback(request)

    async def terminate(self, request: web.Request) -> web.Response:
        body = await read_body(request, TerminateRequest)
        return reply(self._facts.commands.terminate(body, lenient=self._lenient(request)), status=202)

    async def resume(self, request: web.Request) -> web.Response:
        body = await read_body(request, ResumeRequest)
        return reply(self._facts.commands.resume(body, lenient=self._lenient(request)))

    async def health(self, _request: web.Request) -> web.Response:
        now = wire_time(self._facts.clock.now())
        return reply({"service": "mitigation-node-management", "status": "healthy", "timestamp": now})

    async def ready(self, _request: web.Request) -> web.Response:
        if self._facts.drain.draining:
            return reply({"status": "draining", "reason": self._facts.drain.reason}, status=503)
        return reply({"status": "ready", "joined": self._facts.member() is not None})

    async def status(self, _request: web.Request) -> web.Response:
        facts, member = self._facts, self._facts.member()
        totals, load = facts.plane.stats(), facts.sampler.latest
        return reply({
            "status": "draining" if facts.drain.draining else "running",
            "mode": "l7",
            "uptime_seconds": int(facts.clock.monotonic() - facts.started),
            "connections": {"active": totals.connections, "total": totals.handshakes},
            "health": "healthy",
            "node_id": member.node_id if member else None,
            "pool": member.pool if member else None,
            "boot_id": facts.boot_id,
            "agent_version": __version__,
            "phase": facts.drain.phase,
            "drain_remaining_seconds": round(facts.drain.remaining, 1) if facts.drain.draining else None,
            "in_flight": totals.in_flight,
            "blocklist_version": totals.blocklist_version,
            "load": {
                "cpu": round(load.cpu, 4),
                "memory": round(load.memory, 4),
                "rps": round(load.rps, 2),
                "errors_per_second": round(load.errors_per_second, 2),
                "seconds": round(load.seconds, 2),
            },
        })  # fmt: skip
