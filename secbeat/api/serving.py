"""Listening: sockets with errors that name the remedy."""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from secbeat.api import fast
from secbeat.api.connections import IDLE_SECONDS, Runner
from secbeat.api.headers import security_headers
from secbeat.errors import ConfigError
from secbeat.settings.model import TlsSettings, split_address


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening application."""

    runner: web.AppRunner
    host: str
    port: int
    scheme: str

    @property
    def url(self) -> str:
        """``http://127.0.0.1:3030``; never a wildcard address, which nobody can dial."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - read, not bound
        return f"{self.scheme}://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    async def close(self) -> None:
        """Stop listening and end open connections."""
        await self.runner.cleanup()


async def listen(
    app: web.Application, address: str, *, tls: TlsSettings | None = None, shutdown_timeout: float = 2.0
) -> Listener:
    """Serve ``app`` at ``host:port`` (port 0: any free one).

    Raises:
        ConfigError: PORT_IN_USE, ADDRESS_UNAVAILABLE, SECRET_UNREADABLE.
    """
    host, _ = split_address(address)
    runner = Runner(app, access_log=None, shutdown_timeout=shutdown_timeout, keepalive_timeout=IDLE_SECONDS)
    await runner.setup()
    if fast.LANES in app and runner.server is not None:
        fast.attach(runner.server, app[fast.LANES])
    context = server_context(tls) if tls else None
    try:
        sock = bind(address)
        await web.SockSite(runner, sock, ssl_context=context, backlog=1024).start()
    except BaseException:
        await runner.cleanup()
        raise
    return Listener(runner, host, sock.getsockname()[1], "https" if context else "http")


def bind(address: str) -> socket.socket:
    """A bound, non-blocking TCP socket for ``host:port``; port 0 is any free one.

    Raises:
        ConfigError: PORT_IN_USE, ADDRESS_UNAVAILABLE.
    """
    host, port = split_address(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError("ADDRESS_UNAVAILABLE", why=f"{address}: {error}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError("PORT_IN_USE", why=f"{address} is taken by another process") from None
        raise ConfigError("ADDRESS_UNAVAILABLE", why=f"{address}: {error.strerror}") from None
    return sock


def server_context(tls: TlsSettings) -> ssl.SSLContext | None:
    """A TLS context from the settings, or None when neither file is set.

    Raises:
        ConfigError: one without the other, or unreadable (SECRET_UNREADABLE).
    """
    if tls.cert_file is None and tls.key_file is None:
        return None
    if tls.cert_file is None or tls.key_file is None:
        raise ConfigError("CONFIG_INVALID", why="tls needs both cert_file and key_file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("SECRET_UNREADABLE", why=f"{tls.cert_file}, {tls.key_file}: {error}") from None
    return context


def metrics_app(registry: CollectorRegistry) -> web.Application:
    """``GET /metrics`` in the format that the scraper asks for."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.on_response_prepare.append(security_headers)
    return app
