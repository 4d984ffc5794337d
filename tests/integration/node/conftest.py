from __future__ import annotations

import asyncio
import socket
import ssl

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from node.dataplane.builtin import BuiltinPlane
from secbeat import origin
from secbeat.api import listen
from secbeat.settings import NodeSettings


def client_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.fixture
async def upstream():
    """Serve an application on a free port: the test origin, or one of the test's own."""
    listeners = []

    async def serve(app: web.Application | None = None) -> str:
        listener = await listen(app or origin.build(), "127.0.0.1:0", shutdown_timeout=0.2)
        listeners.append(listener)
        return listener.url

    yield serve
    for listener in listeners:
        await listener.close()


@pytest.fixture
async def plane(tmp_path):
    """Start data planes in front of a backend."""
    planes = []

    async def start(backend: str, **settings) -> BuiltinPlane:
        settings = {"listen_addr": "127.0.0.1:0", "backend": backend, **settings}
        made = BuiltinPlane(NodeSettings(**settings), tmp_path / f"plane{len(planes)}")
        planes.append(made)
        await made.start()
        return made

    yield start
    for made in planes:
        await made.end()


@pytest.fixture
async def client():
    """An HTTP client that accepts the node's own certificate and changes nothing by itself."""
    connector = aiohttp.TCPConnector(ssl=client_tls(), limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        yield session


@pytest.fixture
def raw():
    """Open a TLS connection to a port and return its reader and writer: for what no client library would send."""
    writers = []

    async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls())
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.transport.abort()


@pytest.fixture
def at():
    """The URL of a path at a data plane, byte for byte."""
    return lambda plane, path="/": URL(f"https://127.0.0.1:{plane.port}{path}", encoded=True)


@pytest.fixture
def unused_port():
    """A port on which nobody listens."""

    def find() -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return sock.getsockname()[1]

    return find
