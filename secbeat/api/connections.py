"""Connections that cannot hold the service: who stops in the middle of something is cut, and there is a largest number.

aiohttp waits for ever for the rest of a request's head and for a client that does not read its answer. A sweep every
few seconds ends both. Whatever is no HTTP at all gets problem+json with the headers that every answer has.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from contextlib import suppress
from typing import Any

from aiohttp import web

from secbeat.api.answering import problem
from secbeat.api.headers import STRICT
from secbeat.api.requests import ApiError

log = logging.getLogger("api")

HEAD_SECONDS = 30.0  # for a whole head, from the connection or its first byte
STUCK_SECONDS = 60.0  # for a client to take what fills its buffer
IDLE_SECONDS = 180.0  # between two requests of one connection; the original's node beats every 60 s
SWEEP_SECONDS = 5.0
_SHARE = 0.8  # of the files that the process may open: the store and the log need some, too


def unreadable(connection: web.RequestHandler) -> bool:  # type: ignore[type-arg, unused-ignore]
    """Whether the newest thing that came was no HTTP. What was read of it is let go: an error's frames hold it."""
    messages = connection._messages  # noqa: SLF001 - what its own parser has made of the bytes
    error = getattr(messages[-1][0], "exc", None) if messages else None
    if error is None:
        return False
    # They hold it in a cycle, and the collector counts objects, not their megabytes.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return True


class Connection(web.RequestHandler):  # type: ignore[type-arg, unused-ignore]
    """One connection, and since when it owes us something."""

    __slots__ = ("_broken", "_head_since", "_stuck_since", "wire")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._broken = False  # what comes behind something unreadable is not read
        self._head_since: float | None = None
        self._stuck_since: float | None = None
        self.wire: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._head_since = self._loop.time()
        self.wire = transport if isinstance(transport, asyncio.Transport) else None
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        requests = self._request_count
        super().data_received(data)
        self._broken = unreadable(self)
        if self._request_count != requests or self._request_in_progress or self._messages:
            self._head_since = None
        elif self._head_since is None:
            self._head_since = self._loop.time()

    def pause_writing(self) -> None:
        self._stuck_since = self._loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stuck_since = None
        super().resume_writing()

    def overdue(self, now: float) -> bool:
        """Whether the peer has had its time."""
        if self._head_since is not None and now - self._head_since > HEAD_SECONDS:
            return True
        if self._stuck_since is None and self.wire is not None and self.wire.is_closing():
            # Closed by us, and the rest of the answer is not taken.
            self._stuck_since = now
        return self._stuck_since is not None and now - self._stuck_since > STUCK_SECONDS

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP, and what no middleware caught."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("the answer has begun, or nobody is there to have one")
        if status == 400:
            log.info("No HTTP from %s: %s", request.remote, message, extra={"action": "request_malformed"})
            answer = problem(ApiError("REQUEST_MALFORMED", 400, (message or "unreadable").strip()[:200]))
        else:
            log.error("A request failed", exc_info=exc, extra={"action": "request_failed"})
            answer = problem(ApiError("INTERNAL", 500, "the request could not be handled"))
        # Here no hook takes away the name and version that aiohttp puts in; a value of ours keeps them out.
        answer.headers.update({**STRICT, "Server": "secbeat"})
        answer.force_close()
        return answer


class Server(web.Server):  # type: ignore[type-arg, unused-ignore]
    """An aiohttp server whose connections are swept; made from the one that an application has made."""

    def __init__(self, made: web.Server, *, most: int | None = None) -> None:  # type: ignore[type-arg, unused-ignore]
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 - the application's own; aiohttp has no way to give a server's class
        )
        self._most = most or int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * _SHARE)
        self._sweeping: asyncio.Task[None] | None = None
        self.cut = 0

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:  # type: ignore[type-arg, unused-ignore]
        super().connection_made(handler, transport)
        if len(self._connections) > self._most:
            self.cut += 1
            transport.abort()
        if self._sweeping is None:
            self._sweeping = self._loop.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._loop.time()
            for connection in self.connections:
                if isinstance(connection, Connection) and connection.overdue(now) and connection.wire is not None:
                    self.cut += 1
                    connection.wire.abort()

    async def shutdown(self, timeout: float | None = None) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping
        await super().shutdown(timeout)


class Runner(web.AppRunner):
    """An application's runner with :class:`Server`."""

    async def _make_server(self) -> Server:
        return Server(await super()._make_server())
