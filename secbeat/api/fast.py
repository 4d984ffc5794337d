"""A fast lane in front of an application, for one route that is called far more often than all others together.

A lane's handler either answers the request completely or returns None, and then the whole application handles it as
if there were no lane: router, middlewares, errors. So a lane only knows the plain success; every refusal has one
implementation, in the application. A handler may read the body: the application finds it read.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from secbeat.api.guarding import from_a_page
from secbeat.api.headers import STRICT

Lane = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]
LANES: web.AppKey[Mapping[tuple[str, str], Lane]] = web.AppKey("lanes", Mapping)

_HEAD = "".join(
    ("HTTP/1.1 200 OK\r\n", *(f"{name}: {value}\r\n" for name, value in STRICT.items()), "Content-Length: 0\r\nDate: ")
)


def attach(server: web.Server, lanes: Mapping[tuple[str, str], Lane]) -> None:
    """Put ``lanes`` (by method and path) in front of what ``server`` calls."""
    application = server.request_handler

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        lane = lanes.get((request.method, request.path))
        if lane is not None and not from_a_page(request):
            answer = await lane(request)
            if answer is not None:
                return answer
        return await application(request)

    server.request_handler = handle


class EmptyOk(web.StreamResponse):
    """An empty 200 without a response object of its own: one instance answers every request.

    Half of what a small request costs in aiohttp is building and serialising the same few headers again. Only for
    requests that :meth:`fits` says it fits: others expect a ``Connection`` header.
    """

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._bytes = b""

    @staticmethod
    def fits(request: web.BaseRequest) -> bool:
        """Whether the connection stays open without saying so."""
        return request.keep_alive and request.version >= (1, 1)

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the whole answer; waits for a client that does not read.

        Raises:
            ConnectionResetError: the client has gone.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        transport.write(self._answer())
        if transport.get_write_buffer_size():
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""

    def _answer(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._bytes = f"{_HEAD}{formatdate(second, usegmt=True)}\r\n\r\n".encode()
        return self._bytes
