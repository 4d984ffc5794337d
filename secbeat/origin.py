"""The test origin: an upstream that says what it was asked, for trying a node by hand and for tests.

GET, POST, … any path      JSON: method, path, headers, body size
/slow?ms=N                 answers after N milliseconds
/bytes?n=N                 N bytes, streamed
/status/NNN                that status
/ws                        a WebSocket that echoes; the text "close NNNN" closes with that code
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import WSMsgType, web

from secbeat.api import listen
from secbeat.service import Stop

log = logging.getLogger("origin")

DEFAULT_ADDRESS = "127.0.0.1:8080"
_CHUNK = b"secbeat\n" * 4096
_MAX_BYTES = 10 * 1024**3
_MAX_MILLISECONDS = 600_000


def _number(request: web.Request, name: str, default: int, limit: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise web.HTTPBadRequest(text=f"{name} must be a whole number\n")
    return min(int(text[:20]), limit)


async def _discard(request: web.Request) -> int:
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
    return size


async def _echo(request: web.Request) -> web.Response:
    size = await _discard(request)
    body: dict[str, Any] = {
        "method": request.method,
        "path": request.raw_path,
        "headers": [list(pair) for pair in request.headers.items()],
        "body_bytes": size,
    }
    return web.json_response(body)


async def _slow(request: web.Request) -> web.Response:
    milliseconds = _number(request, "ms", 1000, _MAX_MILLISECONDS)
    await _discard(request)
    await asyncio.sleep(milliseconds / 1000)
    return web.json_response({"slept_ms": milliseconds})


async def _bytes(request: web.Request) -> web.StreamResponse:
    left = _number(request, "n", 1024, _MAX_BYTES)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Content-Length": str(left)})
    await response.prepare(request)
    while left > 0 and request.method != "HEAD":
        part = _CHUNK[: min(left, len(_CHUNK))]
        await response.write(part)
        left -= len(part)
    await response.write_eof()
    return response


async def _status(request: web.Request) -> web.Response:
    await _discard(request)
    return web.Response(status=int(request.match_info["status"]))


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT and message.data.startswith("close "):
            await socket.close(code=int(message.data.removeprefix("close ")))
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


def build() -> web.Application:
    """The application; bodies of any size are read and counted, never kept."""
    app = web.Application()
    app.router.add_get("/ws", _socket)
    app.router.add_route("*", "/slow", _slow)
    app.router.add_get("/bytes", _bytes)
    app.router.add_route("*", "/status/{status:[2-5][0-9][0-9]}", _status)
    app.router.add_route("*", "/{path:.*}", _echo)
    return app


async def main(stop: Stop, address: str = DEFAULT_ADDRESS) -> int:
    """Serve until asked to stop; the exit code.

    Raises:
        ConfigError: PORT_IN_USE, ADDRESS_UNAVAILABLE.
    """
    listener = await listen(build(), address)
    log.info("Listening at %s", listener.url, extra={"action": "listening"})
    try:
        await stop.wait()
    finally:
        await listener.close()
    return 0
