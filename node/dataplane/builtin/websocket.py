"""WebSockets through the proxy: messages, pings and close codes both ways; 1001 when the node leaves."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
from aiohttp import WSMsgType, hdrs, web

from node.dataplane.builtin.forward import Upstream
from node.dataplane.builtin.headers import tokens
from node.dataplane.builtin.responses import short
from node.dataplane.builtin.target import upstream_url

log = logging.getLogger("proxy")

_MAX_MESSAGE = 16 * 1024 * 1024
_CLOSE_SECONDS = 5.0
_NOT_SENDABLE = frozenset({0, 1004, 1005, 1006, 1015})
Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse[bool]


def is_websocket(request: web.BaseRequest) -> bool:
    """Whether the request asks for a WebSocket; other upgrades are not forwarded."""
    return (
        request.method == hdrs.METH_GET
        and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
        and "upgrade" in tokens(request.headers, hdrs.CONNECTION)
    )


class Tunnel:
    """One WebSocket: the client's side and the upstream's."""

    def __init__(self, client: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self._client, self._upstream = client, upstream
        self._broken_code = 1011

    async def run(self) -> None:
        """Until both sides are closed."""
        pumps = [
            asyncio.create_task(self._pump(self._client, self._upstream), name="websocket up"),
            asyncio.create_task(self._pump(self._upstream, self._client), name="websocket down"),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await self._upstream.close()

    async def go_away(self) -> None:
        """Close both sides with 1001; the peer has five seconds to answer."""
        self._broken_code = 1001
        await asyncio.gather(_close(self._client, 1001), _close(self._upstream, 1001))

    async def _pump(self, source: Socket, target: Socket) -> None:
        try:
            while await self._pass_on(await source.receive(), target):
                pass
            if source.close_code is not None:
                await _close(source, source.close_code)
        except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
            log.debug("WebSocket: %r", error)
            await _close(target, self._broken_code)
            await _close(source, self._broken_code)

    async def _pass_on(self, message: Any, target: Socket) -> bool:
        """Send one message on; False when it was the last."""
        kind, data = message.type, message.data
        if kind is WSMsgType.TEXT:
            await target.send_str(data)
        elif kind is WSMsgType.BINARY:
            await target.send_bytes(data)
        elif kind is WSMsgType.PING:
            await target.ping(data)
        elif kind is WSMsgType.PONG:
            await target.pong(data)
        elif kind is WSMsgType.CLOSE:
            await _close(target, data, (message.extra or "").encode())
            return False
        else:
            await _close(target, self._broken_code)  # a side that is closed already ignores it
            return False
        return True


async def _close(socket: Socket, code: int | None, text: bytes = b"") -> None:
    if not socket.closed:
        await socket.close(code=1000 if not code or code in _NOT_SENDABLE else code, message=text)


async def open_tunnel(
    upstream: Upstream, request: web.BaseRequest, peer: str
) -> tuple[web.StreamResponse, Tunnel | None]:
    """Connect the upstream, then accept the client: a refusal of the upstream is the client's answer."""
    client = web.WebSocketResponse(timeout=_CLOSE_SECONDS, autoclose=False, autoping=False, compress=False)
    url = upstream_url(upstream.settings.backend, request.method, request.raw_path)
    wanted = [
        part.strip() for value in request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()) for part in value.split(",")
    ]
    if url is None or not client.can_prepare(request):
        return short(400, "malformed WebSocket request"), None
    try:
        async with asyncio.timeout(upstream.settings.upstream_timeout_seconds):
            socket = await upstream.session.ws_connect(
                url,
                protocols=wanted,
                headers=upstream.forwarding.request(request.headers, peer, socket=True),
                autoclose=False,
                autoping=False,
                max_msg_size=_MAX_MESSAGE,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
            )
    except aiohttp.WSServerHandshakeError as error:
        return short(error.status if error.status >= 400 else 502, "the upstream refused the WebSocket"), None
    except TimeoutError:
        return short(504, "the upstream did not answer in time"), None
    except (aiohttp.ClientError, OSError):
        return short(502, "the upstream cannot be reached"), None
    chosen = (socket.protocol,) if socket.protocol else ()
    client = web.WebSocketResponse(
        timeout=_CLOSE_SECONDS,
        autoclose=False,
        autoping=False,
        compress=False,
        protocols=chosen,
        max_msg_size=_MAX_MESSAGE,
    )
    try:
        await client.prepare(request)
    except (ConnectionError, web.HTTPException):
        await socket.close()
        raise
    return client, Tunnel(client, socket)
