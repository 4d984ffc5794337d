"""A client connection: aiohttp's, with a time limit for headers, short error texts and a way to notice its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from node.dataplane.builtin.responses import short
from secbeat.api.connections import unreadable

log = logging.getLogger("proxy")

_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(RequestHandler):
    """One client connection."""

    def __init__(self, manager: ConnectionServer, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self.made_at: float | None = None
        self.partial_since: float | None = None
        self.on_lost: Callable[[], None] | None = None
        self.excess = False
        self._broken = False  # what comes behind something unreadable is not read

    @property
    def idle(self) -> bool:
        """Whether it waits for a request (of which a part may have come)."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def idle_since(self) -> float:
        """Loop time at which the last response ended, or the connection was made."""
        return self._next_keepalive_close_time - self._keepalive_timeout

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made_at = self._loop.time()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        waited = self.idle
        super().data_received(data)
        self._broken = unreadable(self)
        if waited:
            still = self.idle
            if not still:
                self.partial_since = None
            elif self.partial_since is None:
                self.partial_since = self._loop.time()

    def late(self, now: float, header_timeout: float) -> bool:
        """Whether the headers of a request that began, or of a first one, are overdue."""
        if not self.idle or self.made_at is None:
            return False
        since = self.partial_since if self._request_count else self.made_at
        return since is not None and now - since > header_timeout

    def refuse_late(self) -> None:
        """Answer 408 to a part of a request, and close."""
        if self.partial_since is not None and self.transport is not None:
            self.transport.write(_TIMED_OUT)
        self.force_close()

    def abort(self) -> None:
        """Cut it, so that the client sees a broken answer and not a short one."""
        # Abort comes first: up to Python 3.11.3 a TLS transport that was closed twice cannot be aborted any more.
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature; its texts show internals
    ) -> web.StreamResponse:
        if status >= 500 and exc is not None:
            log.error("%s failed: %r", request.method, exc, exc_info=exc, extra={"action": "request_failed"})
        if isinstance(exc, LineTooLong):
            status = 431
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun; it cannot become another one")
        response = short(status, f"{status} {_TEXTS.get(status, 'error')}")
        response.force_close()
        return response


_TEXTS = {400: "malformed request", 431: "header or request line too long", 500: "internal error", 504: "timed out"}


class ConnectionServer(web.Server):
    """Makes connections, and knows those whose TLS handshake is not over."""

    def __init__(self, handler: Any, *, max_connections: int, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self.max_connections = max_connections
        self._created: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self.handshakes = 0

    def __call__(self) -> Connection:
        connection = Connection(self, loop=self._loop, **self._kwargs)
        self._created[connection] = self._loop.time()
        return connection

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.handshakes += 1
        if isinstance(handler, Connection):
            self._created.pop(handler, None)
            # Decided once: those that were there first are served, however many come after them.
            handler.excess = self.count > self.max_connections

    def keep_idle_for(self, seconds: float) -> None:
        """New connections may be idle so long."""
        self._kwargs["keepalive_timeout"] = seconds

    @property
    def open(self) -> list[Connection]:
        """The connections whose handshake is over."""
        return [one for one in self.connections if isinstance(one, Connection)]

    @property
    def count(self) -> int:
        """Their number, without making a list."""
        return len(self._connections)

    def handshaking(self, younger_than: float) -> int:
        """Accepted connections, at most ``younger_than`` seconds old, whose handshake is not over."""
        now = self._loop.time()
        return sum(1 for created in list(self._created.values()) if now - created < younger_than)
