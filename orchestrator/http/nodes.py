"""Nodes: the original's list and its terminate, joining, draining, protection."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator, Mapping
from typing import get_args

from aiohttp import web

from orchestrator.control import Missing
from orchestrator.http.context import Context, DrainRequest, ProtectRequest, node_id_of, summary
from orchestrator.http.paging import AFTER, MAX_LIMIT, NEXT_LINK, link
from secbeat.api import (
    Route,
    asked,
    bearer,
    changed,
    choices,
    flag,
    integer,
    principal,
    read_body,
    read_optional,
    reply,
)
from secbeat.api.parameters import POOL
from secbeat.wire.nodes import NodeState, NodeView, NodeWhy
from secbeat.wire.operations import OperationRecord
from secbeat.wire.registration import RegisterRequest, RegisterResponse

_BY_HAND = "MANUAL"
_AT_ONCE = 128 * 1024  # bytes of a list that are one answer with its length; more is streamed
_TURN = 0.002  # seconds of making a list after which everything else gets its turn
_AHEAD = 1024 * 1024  # bytes of a list that wait for a client here at most
_IN_KERNEL = 4 * 1024 * 1024  # and there: what it takes at once is not copied about in a buffer of ours


class Nodes:
    """Handlers of ``/api/v1/nodes`` but the heartbeat."""

    def __init__(self, context: Context) -> None:
        self._control, self._registry = context.control, context.registry

    async def list(self, request: web.Request) -> web.StreamResponse:
        pool, states = asked(request, "pool"), asked(request, "state")
        limit, after = asked(request, "limit"), asked(request, "after")
        # Whoever names a state wants to see it.
        include_all = asked(request, "all") or states is not None
        if pool is not None:
            self._control.pool(pool)
        if limit is None and after is None:
            nodes, following = self._registry.chosen(pool=pool, states=states), None
        else:
            nodes, following = self._registry.page(
                limit=limit or MAX_LIMIT, after=after or "", pool=pool, states=states, include_all=include_all
            )
        headers = link(request, following)
        chunks = self._registry.listing(nodes, include_all=include_all)
        begun = b""
        for chunk in chunks:
            begun += chunk
            if len(begun) > _AT_ONCE:
                return await _stream(request, begun, chunks, headers)
        return web.Response(body=begun, content_type="application/json", headers=headers)

    async def show(self, request: web.Request) -> web.Response:
        return reply(self._view(node_id_of(request, original=True)))

    async def why(self, request: web.Request) -> web.Response:
        return reply(self._control.why_node(node_id_of(request)))

    async def register(self, request: web.Request) -> web.Response:
        body = await read_body(request, RegisterRequest)
        answer = await self._control.register(body, peer=request.remote or "", host=request.host, token=bearer(request))
        changed(request, after={"node_id": answer.node_id, "joined": body.join is not None})
        # The original's three keys for an original's node, nothing beside them.
        return web.Response(text=answer.model_dump_json(exclude_none=True), content_type="application/json")

    async def drain(self, request: web.Request) -> web.Response:
        body = await read_optional(request, DrainRequest)
        operation = await self._control.drain(
            node_id_of(request), reason=body.reason or _BY_HAND, by=principal(request).name
        )
        changed(request, after=summary(operation))
        return reply(operation, status=202)

    async def undrain(self, request: web.Request) -> web.Response:
        operation = await self._control.undrain(node_id_of(request), by=principal(request).name)
        changed(request, after=summary(operation))
        return reply(operation)

    async def terminate(self, request: web.Request) -> web.Response:
        """The original only marks the node; ours drains it and tears it down."""
        operation = await self._control.drain(
            node_id_of(request, original=True), reason=_BY_HAND, by=principal(request).name
        )
        changed(request, after=summary(operation))
        return web.Response()

    async def protect(self, request: web.Request) -> web.Response:
        node_id = node_id_of(request)
        body = await read_body(request, ProtectRequest)
        before = self._view(node_id).protected
        await self._control.protect(node_id, on=body.on, by=principal(request).name)
        changed(request, before={"protected": before}, after={"protected": body.on})
        return reply(self._view(node_id))

    def _view(self, node_id: str) -> NodeView:
        view = self._registry.view(node_id)
        if view is None:
            raise Missing("NOT_FOUND", why=f"there is no node {node_id}", fix="List them: secbeat nodes --all")
        return view


def _widen(transport: asyncio.Transport) -> None:
    transport.set_write_buffer_limits(high=_AHEAD)
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _IN_KERNEL)


async def _stream(
    request: web.Request, begun: bytes, others: Iterator[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    """A list of many nodes, chunk by chunk; every few milliseconds heartbeats and decisions get their turn."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    if request.transport is not None:
        _widen(request.transport)
    try:
        await response.write(begun)
        since = time.perf_counter()
        for chunk in others:
            if time.perf_counter() - since > _TURN:
                await asyncio.sleep(0)
                since = time.perf_counter()
            await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        pass  # The client has gone; there is nobody to tell.
    return response


def routes(context: Context) -> list[Route]:
    """The routes of this module."""
    nodes = Nodes(context)
    one = "/api/v1/nodes/{node_id}"
    return [
        Route(method="GET", path="/api/v1/nodes", handler=nodes.list, scope="read", loopback_open=True, legacy=True,
              response=list[NodeView], summary="All nodes, a bare array; with limit in pages, by node_id",
              headers=NEXT_LINK, answers={404: "There is no such pool"},
              query={"pool": POOL, "all": flag("Also those that are booting or not ours"),
                     "state": choices("Only in these states, listed whatever they are", *get_args(NodeState)),
                     "limit": integer("At most so many; the Link header names the next page", low=1, high=MAX_LIMIT),
                     "after": AFTER}),
        Route(method="POST", path="/api/v1/nodes/register", handler=nodes.register, scope=None, legacy=True,
              changes=True, request=RegisterRequest, response=RegisterResponse, answers={401: "No valid join secret"},
              summary="Join with a secret, or in the original's form from legacy_nodes"),
        Route(method="GET", path=one, handler=nodes.show, scope="read", loopback_open=True, legacy=True,
              response=NodeView, summary="One node"),
        Route(method="POST", path=f"{one}/terminate", handler=nodes.terminate, scope="operate", legacy=True,
              changes=True, summary="Drain it and tear it down; an empty 200, as the original answers"),
        Route(method="GET", path=f"{one}/why", handler=nodes.why, scope="read", response=NodeWhy,
              summary="Why it is still there"),
        Route(method="POST", path=f"{one}/drain", handler=nodes.drain, scope="operate", changes=True, status=202,
              request=DrainRequest, optional_body=True, response=OperationRecord,
              summary="Drain it, then tear it down"),
        Route(method="POST", path=f"{one}/undrain", handler=nodes.undrain, scope="operate", changes=True,
              response=OperationRecord, summary="Cancel its drain, while its listener is open"),
        Route(method="POST", path=f"{one}/protect", handler=nodes.protect, scope="operate", changes=True,
              request=ProtectRequest, response=NodeView, summary="Never choose it to leave, or do again"),
    ]  # fmt: skip
