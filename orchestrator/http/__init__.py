"""The orchestrator's HTTP API: handlers that translate between HTTP and ``orchestrator.control`` and decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

from aiohttp import web

from orchestrator.control import Control
from orchestrator.events import EventHub
from orchestrator.fleet import Registry
from orchestrator.http import blocking, fleet, heartbeats, history, nodes, operations, pools, streaming
from orchestrator.http.auditing import Audit
from orchestrator.http.context import Context, Network, Unit, peers_within
from orchestrator.http.examples import EXAMPLES
from orchestrator.http.following import Following
from orchestrator.rules import Rules
from secbeat.api import Route, build_app, fail, health_routes
from secbeat.api.fast import LANES
from secbeat.api.guarding import HostCheck, TokenCheck
from secbeat.auth import TokenBook
from secbeat.clock import Clock

__all__ = ["Audit", "build", "routes"]

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_ANSWERS_BY_ITSELF = frozenset({"/api/v1/rules/block_ip"})


def _percent(_pool: str) -> Unit:
    return "percent"


def routes(
    *, control: Control, registry: Registry, rules: Rules, events: EventHub, audit: Audit, clock: Clock
) -> list[Route]:
    """All routes under ``/api/v1`` with the defaults of :func:`build`."""
    context = Context(
        control=control,
        registry=registry,
        rules=rules,
        events=events,
        audit=audit,
        clock=clock,
        trusted=peers_within(LOOPBACK),
        legacy_unit=_percent,
        webhook_secrets=tuple,
        following=Following(lambda _token: None, None, registry.nodes),
    )
    return _routes(context, heartbeats.Heartbeats(context))


def _routes(context: Context, beats: heartbeats.Heartbeats) -> list[Route]:
    found = [
        *fleet.routes(context),
        *nodes.routes(context),
        *heartbeats.routes(beats),
        *pools.routes(context),
        *operations.routes(context),
        *history.routes(context),
        *streaming.routes(context),
        *blocking.routes(context),
    ]
    return [_led(context.control, route) for route in found]


def _led(control: Control, route: Route) -> Route:
    """A route that changes something answers 503 where the lease is not held."""
    if not route.changes or route.path in _ANSWERS_BY_ITSELF:
        return route
    handler = route.handler

    async def only_as_leader(request: web.Request) -> web.StreamResponse:
        if not control.leader:
            fail("NOT_LEADER", 503, "the lease is not held by this orchestrator", headers={"Retry-After": "2"})
        return await handler(request)

    return replace(route, handler=only_as_leader)


def build(
    *,
    control: Control,
    registry: Registry,
    rules: Rules,
    events: EventHub,
    audit: Audit,
    clock: Clock,
    tokens: TokenBook | TokenCheck,
    allowed_hosts: Sequence[str] = (),
    legacy_nodes: Sequence[Network] = LOOPBACK,
    legacy_unit: Callable[[str], Unit] = _percent,
    webhook_secrets: Callable[[], Sequence[str]] = tuple,
    checks: Callable[[], Mapping[str, str | None]] = dict,
    node_token: Callable[[str], str] | None = None,
) -> web.Application:
    """The application that :3030 serves; give it to ``secbeat.api.listen``, which also puts the fast lane in front.

    Args:
        tokens: API tokens.
        allowed_hosts: Host names besides localhost and addresses.
        legacy_nodes: where nodes of the original may beat from.
        legacy_unit: unit of CPU in the original's heartbeat, by pool.
        webhook_secrets: secrets that a status callback may be signed with.
        checks: for ``/readyz``: name of a dependency → None when it is well, else one sentence.
        node_token: a node's management token by its id; with it a node beyond loopback may read the blocklist.
    """
    context = Context(
        control=control,
        registry=registry,
        rules=rules,
        events=events,
        audit=audit,
        clock=clock,
        trusted=peers_within(legacy_nodes),
        legacy_unit=legacy_unit,
        webhook_secrets=webhook_secrets,
        following=Following(tokens.check if isinstance(tokens, TokenBook) else tokens, node_token, registry.nodes),
    )
    beats = heartbeats.Heartbeats(context)
    app = build_app(
        "orchestrator",
        [*health_routes(checks), *_routes(context, beats)],
        tokens=tokens,
        allowed_hosts=allowed_hosts,
        on_audit=audit.on_request,
        examples=EXAMPLES,
    )
    app[LANES] = {("POST", heartbeats.PATH): beats.lane(HostCheck(allowed_hosts))}

    async def end_streams(_app: web.Application) -> None:
        events.close()

    app.on_shutdown.append(end_streams)
    return app
