"""A fast lane in front of an application, for one route that is called far more often than all others together.

A lane's handler either answers the request completely or returns None, and then the whole application handles it as
if there were no lane: router, middlewares, errors. So a lane only knows the plain success; every refusal has one
implementation, in the application. A handler may read the body: the application finds it read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

Lane = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]
LANES: web.AppKey[Mapping[tuple[str, str], Lane]] = web.AppKey("lanes", Mapping)


def attach(server: web.Server, lanes: Mapping[tuple[str, str], Lane]) -> None:
    """Put ``lanes`` (by method and path) in front of what ``server`` calls."""
    application = server.request_handler

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        lane = lanes.get((request.method, request.path))
        if lane is not None:
            answer = await lane(request)
            if answer is not None:
                return answer
        return await application(request)

    server.request_handler = handle
