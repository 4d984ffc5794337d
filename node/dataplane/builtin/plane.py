"""The driver itself: listener, request handler, and its part of the drain."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import aiohttp
from aiohttp import hdrs, web

from node.dataplane import Quantiles, Totals
from node.dataplane.blocklist import Blocklist
from node.dataplane.builtin import tls
from node.dataplane.builtin.connection import Connection, ConnectionServer
from node.dataplane.builtin.counters import Counters
from node.dataplane.builtin.forward import Upstream, forward
from node.dataplane.builtin.headers import Forwarding
from node.dataplane.builtin.responses import close_after, short
from node.dataplane.builtin.websocket import Tunnel, is_websocket, open_tunnel
from node.dataplane.limits import allow_many_files
from secbeat.api import bind
from secbeat.settings import NodeSettings, split_address

log = logging.getLogger("proxy")

READY_PATH = "/.secbeat/ready"
# Shorter than any upstream's own: uvicorn's and Node's default is 5 s. A connection is dropped by us, not under us.
_UPSTREAM_KEEPALIVE = 4.0
_TLS_SHUTDOWN = 2.0
# A handshake that began so long before the listener closed is waited for.
_HANDSHAKE = 5.0
_LINGER = 1.0
_SWEEP = 0.5
_GO_AWAY_EACH = 0.05


class BuiltinPlane:
    """A DataPlane."""

    def __init__(self, settings: NodeSettings, state_dir: Path) -> None:
        self._settings = settings
        self._state_dir = state_dir
        self._counters = Counters()
        self._blocklist = Blocklist()
        self._tunnels: set[Tunnel] = set()
        self._draining = False
        self._held: str | None = None
        self._listening = False
        self._closed_at = 0.0
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._server: ConnectionServer | None = None
        self._upstream: Upstream | None = None

    # ------------------------------------------------------------------------------------------------ start and state

    @property
    def port(self) -> int:
        return self._port

    @property
    def in_flight(self) -> int:
        return self._counters.in_flight

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def processes(self) -> list[int]:
        return []

    async def start(self) -> None:
        settings = self._settings
        host, _ = split_address(settings.listen_addr)
        context = tls.context(settings.tls, self._state_dir / "tls", [host, settings.public_ip])
        sock = bind(settings.listen_addr)
        allow_many_files(2 * settings.max_connections + 256)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_UPSTREAM_KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.upstream_timeout_seconds),
            auto_decompress=False,
            trust_env=False,
        )
        self._upstream = Upstream(session, settings, Forwarding(settings.trusted_proxies))
        self._server = ConnectionServer(
            self._handle,
            max_connections=settings.max_connections,
            access_log=None,
            keepalive_timeout=settings.idle_timeout_seconds,
            auto_decompress=False,
            max_field_size=16 * 1024,
            logger=logging.getLogger("aiohttp.server"),
        )
        self._listener = await asyncio.get_running_loop().create_server(
            self._server,
            sock=sock,
            ssl=context,
            backlog=1024,
            ssl_handshake_timeout=settings.header_timeout_seconds,
            ssl_shutdown_timeout=_TLS_SHUTDOWN,
        )
        self._port = sock.getsockname()[1]
        self._listening = True
        self._sweeper = asyncio.create_task(self._sweep(), name="proxy sweep")

    def stats(self) -> Totals:
        counters, server = self._counters, self._server
        return Totals(
            requests=counters.requests,
            proxied=counters.proxied,
            server_errors=counters.server_errors,
            http_errors=counters.http_errors,
            blocked=counters.blocked,
            over_limit=counters.over_limit,
            upgraded=counters.upgraded,
            in_flight=counters.in_flight,
            handshakes=server.handshakes if server else 0,
            connections=server.count if server else 0,
            blocklist_size=self._blocklist.size,
            blocklist_version=self._blocklist.version,
        )

    def take_latency(self) -> Quantiles:
        return self._counters.latency.take()

    def configure(self, settings: NodeSettings) -> None:
        self._settings = settings
        if self._upstream is not None and self._server is not None:
            self._upstream = Upstream(self._upstream.session, settings, Forwarding(settings.trusted_proxies))
            self._server.keep_idle_for(settings.idle_timeout_seconds)
            self._server.max_connections = settings.max_connections

    def set_blocklist(self, blocklist: Blocklist) -> None:
        self._blocklist = blocklist

    def hold(self, why: str | None) -> None:
        """Keep out of rotation, for this reason; None: no longer. Requests are served either way."""
        self._held = why

    # -------------------------------------------------------------------------------------------------------- requests

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.partition("?")[0] == READY_PATH:
            return self._ready(request)
        counters = self._counters
        counters.requests += 1
        counters.in_flight += 1
        started = time.perf_counter()
        upgraded = False
        try:
            response, upgraded = await self._serve(request)
            counters.answered(response.status)
            if self._draining and not response.prepared:
                close_after(response)
            return response
        finally:
            counters.in_flight -= 1
            if not upgraded:
                counters.latency.add(time.perf_counter() - started)

    def _ready(self, request: web.BaseRequest) -> web.Response:
        if request.method not in {hdrs.METH_GET, hdrs.METH_HEAD}:
            return short(405, "GET or HEAD")
        why = "draining" if self._draining else self._held
        response = short(200, "ready") if why is None else short(503, why)
        if self._draining:
            close_after(response)
        return response

    async def _serve(self, request: web.BaseRequest) -> tuple[web.StreamResponse, bool]:
        upstream, counters = self._upstream, self._counters
        assert upstream is not None  # noqa: S101 - requests arrive after start
        peer = request.remote or ""
        if isinstance(request.protocol, Connection) and request.protocol.excess:
            counters.over_limit += 1
            response = short(503, "too many connections")
            close_after(response)
            response.force_close()
            return response, False
        if self._blocklist.size and self._blocklist.blocks(upstream.forwarding.client(request.headers, peer)):
            counters.blocked += 1
            return short(403, "blocked"), False
        if request.method == hdrs.METH_OPTIONS and request.raw_path == "*":
            return web.Response(status=204, headers={hdrs.SERVER: "secbeat"}), False
        counters.proxied += 1
        if is_websocket(request):
            return await self._tunnel(upstream, request, peer)
        return await forward(upstream, request, peer, draining=lambda: self._draining), False

    async def _tunnel(self, upstream: Upstream, request: web.BaseRequest, peer: str) -> tuple[web.StreamResponse, bool]:
        response, tunnel = await open_tunnel(upstream, request, peer)
        if tunnel is None:
            return response, False
        self._counters.upgraded += 1
        self._tunnels.add(tunnel)
        try:
            await tunnel.run()
        finally:
            self._tunnels.discard(tunnel)
        return response, True

    async def _sweep(self) -> None:
        """Refuse clients that do not finish their headers."""
        server = self._server
        assert server is not None  # noqa: S101 - started by start
        loop = asyncio.get_running_loop()
        while True:
            limit = self._settings.header_timeout_seconds
            await asyncio.sleep(min(_SWEEP, limit / 4))
            now = loop.time()
            for connection in server.open:
                if connection.late(now, limit):
                    connection.refuse_late()

    # ----------------------------------------------------------------------------------------------------------- drain

    def begin_drain(self) -> None:
        self._draining = True

    def cancel_drain(self) -> None:
        if self._listening:
            self._draining = False

    async def close_listener(self) -> None:
        self._draining = True
        self._listening = False
        self._closed_at = asyncio.get_running_loop().time()
        if self._listener is not None:
            self._listener.close()

    async def settle(self, seconds: float) -> int:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        leaving = asyncio.create_task(self._go_away(seconds / 2), name="websockets leave")
        try:
            while loop.time() < end and not self._empty():
                self._close_idle(min(_LINGER, seconds / 4))
                await asyncio.sleep(min(0.02, max(0.0, end - loop.time())))
        finally:
            leaving.cancel()
        return self._counters.in_flight

    def _empty(self) -> bool:
        server = self._server
        return server is None or not (server.count or self._counters.in_flight or server.handshaking(_HANDSHAKE))

    def _close_idle(self, linger: float) -> None:
        """Close what has been silent for ``linger`` seconds since the end of accepting.

        A request that was on its way meanwhile has been answered, with ``Connection: close``.
        """
        if self._server is None:
            return
        now = asyncio.get_running_loop().time()
        for connection in self._server.open:
            waits = connection.idle and connection.partial_since is None
            if waits and now - max(connection.idle_since, self._closed_at) >= linger:
                connection.force_close()

    async def _go_away(self, window: float) -> None:
        """Close the WebSockets one after the other, so that not all clients reconnect at one moment."""
        tunnels = list(self._tunnels)
        pause = min(_GO_AWAY_EACH, window / len(tunnels)) if tunnels else 0.0
        async with asyncio.TaskGroup() as group:
            for tunnel in tunnels:
                group.create_task(tunnel.go_away())
                await asyncio.sleep(pause)

    async def end(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._server is not None:
            for connection in self._server.open:
                connection.abort()
            await self._server.shutdown(timeout=0.5)
            self._server = None
        if self._upstream is not None:
            await self._upstream.session.close()
            self._upstream = None
