from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import WSMsgType, web


async def test_text_and_binary_are_echoed_through_the_proxy(upstream, plane, client, at, until):
    node = await plane(await upstream())
    async with client.ws_connect(at(node, "/ws")) as socket:
        await socket.send_str("héllo")
        assert (await socket.receive_str()) == "héllo"
        await socket.send_bytes(b"\0" * 300_000)
        assert (await socket.receive_bytes()) == b"\0" * 300_000
        await until(lambda: node.in_flight == 1, 10)
    async with asyncio.timeout(10):
        await until(lambda: not node.in_flight)


async def test_the_upstreams_close_code_reaches_the_client(upstream, plane, client, at):
    node = await plane(await upstream())
    async with client.ws_connect(at(node, "/ws")) as socket:
        await socket.send_str("close 4321")
        message = await socket.receive(timeout=10)
        assert message.type is WSMsgType.CLOSE
        assert message.data == 4321


async def test_the_clients_close_code_reaches_the_upstream(upstream, plane, client, at):
    code = asyncio.get_running_loop().create_future()

    async def accept(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        code.set_result(socket.close_code)
        return socket

    app = web.Application()
    app.router.add_get("/ws", accept)
    node = await plane(await upstream(app))
    socket = await client.ws_connect(at(node, "/ws"))
    await socket.close(code=4002)
    async with asyncio.timeout(10):
        assert await code == 4002


async def test_subprotocol_query_and_own_headers_are_passed_on(upstream, plane, client, at):
    async def accept(request):
        seen.update(path=request.raw_path, cookie=request.headers.get("Cookie"), origin=request.headers.get("Origin"))
        socket = web.WebSocketResponse(protocols=("two",))
        await socket.prepare(request)
        await socket.close()
        return socket

    seen: dict = {}
    app = web.Application()
    app.router.add_get("/ws", accept)
    node = await plane(await upstream(app))
    headers = {"Cookie": "a=1", "Origin": "https://shop.example"}
    async with client.ws_connect(at(node, "/ws?x=%2F"), protocols=("one", "two"), headers=headers) as socket:
        assert socket.protocol == "two"
    assert seen == {"path": "/ws?x=%2F", "cookie": "a=1", "origin": "https://shop.example"}


async def test_a_refused_websocket_is_refused_with_the_upstreams_status(upstream, plane, client, at):
    async def refuse(_request):
        return web.Response(status=401)

    app = web.Application()
    app.router.add_get("/ws", refuse)
    node = await plane(await upstream(app))
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.ws_connect(at(node, "/ws"))
    assert refused.value.status == 401


async def test_when_the_upstream_breaks_off_the_client_hears_of_it(upstream, plane, client, at, until, driver):
    async def accept(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        request.transport.abort()
        return socket

    app = web.Application()
    app.router.add_get("/ws", accept)
    node = await plane(await upstream(app))
    async with client.ws_connect(at(node, "/ws")) as socket:
        await socket.send_str("die")
        message = await socket.receive(timeout=10)
        # HAProxy passes bytes: it ends the connection, and cannot send a close frame of its own.
        expected = (WSMsgType.CLOSE, 1011) if driver == "builtin" else (WSMsgType.CLOSED, None)
        assert (message.type, message.data) == expected
    async with asyncio.timeout(10):
        await until(lambda: not node.in_flight)


async def test_when_the_client_vanishes_the_upstream_hears_of_it(upstream, plane, client, at, until):
    gone = asyncio.Event()

    async def accept(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        gone.set()
        return socket

    app = web.Application()
    app.router.add_get("/ws", accept)
    node = await plane(await upstream(app))
    socket = await client.ws_connect(at(node, "/ws"))
    socket._response.connection.transport.abort()
    async with asyncio.timeout(10):
        await gone.wait()
        await until(lambda: not node.in_flight)


async def test_pings_are_answered_by_the_peer_and_not_by_the_proxy(upstream, plane, client, at):
    async def accept(request):
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        message = await socket.receive()
        assert message.type is WSMsgType.PING
        await socket.pong(b"from the upstream")
        await socket.receive()
        return socket

    app = web.Application()
    app.router.add_get("/ws", accept)
    node = await plane(await upstream(app))
    async with client.ws_connect(at(node, "/ws"), autoping=False) as socket:
        await socket.ping(b"hello")
        message = await socket.receive(timeout=10)
        assert (message.type, bytes(message.data)) == (WSMsgType.PONG, b"from the upstream")
