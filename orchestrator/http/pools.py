"""Pools: what is, why, and what operators change."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from orchestrator.explaining import why_pool_then
from orchestrator.http.context import Context, with_revision
from orchestrator.http.paging import Page, page
from secbeat.api import Parameter, Route, asked, changed, fail, principal, read_body, read_optional, reply
from secbeat.wire.pools import (
    NewNodeRequest,
    PauseRequest,
    PoolView,
    PoolWhy,
    ResumeRequest,
    ScaleRequest,
)
from secbeat.wire.registration import JoinFile


def _answer(view: PoolView) -> web.Response:
    return reply(view, headers={"ETag": f'"{view.revision}"'})


def _audited(view: PoolView) -> dict[str, Any]:
    return view.model_dump(
        mode="json", include={"revision", "desired", "min", "max", "pause", "override", "retired", "frozen_since"}
    )


class Pools:
    """Handlers of ``/api/v1/pools``."""

    def __init__(self, context: Context) -> None:
        self._control = context.control

    async def list(self, request: web.Request) -> web.Response:
        return page(request, self._control.pools())

    async def show(self, request: web.Request) -> web.Response:
        return _answer(self._control.pool(request.match_info["name"]))

    async def why(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        at = asked(request, "at")
        if at is None:
            return reply(self._control.why_pool(name))
        self._control.pool(name)
        decision = await self._control.decision_at(name, at)
        if decision is None:
            fail("NOT_FOUND", 404, f"the ledger has no decision of pool {name} at {at.isoformat()}")
        return reply(why_pool_then(name, decision))

    async def scale(self, request: web.Request) -> web.Response:
        body = with_revision(request, await read_body(request, ScaleRequest))
        name = request.match_info["name"]
        before = self._control.pool(name)
        return self._done(request, before, await self._control.scale(name, body, by=principal(request).name))

    async def pause(self, request: web.Request) -> web.Response:
        body = with_revision(request, await read_optional(request, PauseRequest))
        name = request.match_info["name"]
        before = self._control.pool(name)
        return self._done(request, before, await self._control.pause(name, body, by=principal(request).name))

    async def resume(self, request: web.Request) -> web.Response:
        body = with_revision(request, await read_optional(request, ResumeRequest))
        name = request.match_info["name"]
        before = self._control.pool(name)
        return self._done(request, before, await self._control.resume(name, body, by=principal(request).name))

    async def retire(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        before = self._control.pool(name)
        return self._done(request, before, await self._control.retire(name, by=principal(request).name))

    async def new_node(self, request: web.Request) -> web.Response:
        await read_optional(request, NewNodeRequest)
        join_file = await self._control.new_node(
            request.match_info["name"],
            server_url=f"{request.scheme}://{request.host}",
            by=principal(request).name,
        )
        changed(request, after={"op_id": join_file.op_id, "node_id": join_file.node_id})
        return reply(join_file, status=201)

    @staticmethod
    def _done(request: web.Request, before: PoolView, after: PoolView) -> web.Response:
        changed(request, before=_audited(before), after=_audited(after))
        return _answer(after)


def routes(context: Context) -> list[Route]:
    """The routes of this module."""
    pools = Pools(context)
    revised = {"ETag": "The pool's revision, for If-Match"}
    one = "/api/v1/pools/{name}"
    return [
        Route(method="GET", path="/api/v1/pools", handler=pools.list, scope="read", response=Page[PoolView],
              summary="All pools"),
        Route(method="GET", path=one, handler=pools.show, scope="read", response=PoolView,
              headers=revised,
              summary="One pool; ETag is its revision"),
        Route(method="GET", path=f"{one}/why", handler=pools.why, scope="read", response=PoolWhy,
              summary="Why it did or did not change", query={"at": Parameter("As it was at this time", "moment")},
              answers={503: "The ledger does not answer"}),
        Route(method="POST", path=f"{one}/scale", handler=pools.scale, scope="operate", changes=True,
              request=ScaleRequest, response=PoolView, headers=revised, summary="Hold it at a size"),
        Route(method="POST", path=f"{one}/pause", handler=pools.pause, scope="operate", changes=True,
              request=PauseRequest, response=PoolView, headers=revised, optional_body=True,
              summary="Hold growth, shrinking or both"),
        Route(method="POST", path=f"{one}/resume", handler=pools.resume, scope="operate", changes=True,
              request=ResumeRequest, response=PoolView, headers=revised, optional_body=True,
              summary="End pause, manual size, retirement and freeze"),
        Route(method="POST", path=f"{one}/retire", handler=pools.retire, scope="admin", changes=True,
              response=PoolView, headers=revised, summary="Take it to zero, ignoring min, until resume"),
        Route(method="POST", path=f"{one}/nodes", handler=pools.new_node, scope="admin", changes=True, status=201,
              request=NewNodeRequest, optional_body=True, response=JoinFile,
              summary="A join file for a node started by hand"),
    ]  # fmt: skip
