from __future__ import annotations

import asyncio
import gzip
import hashlib

import pytest
from aiohttp import web

MEGABYTE = 1 << 20


@pytest.mark.parametrize("path", ["/a%2Fb%20c?x=%2F&y=a+b", "//double//slash", "/../up/./x", "/%E2%82%AC", "/a;b=c?d"])
async def test_a_path_reaches_the_upstream_byte_for_byte(path, upstream, plane, client, at):
    node = await plane(await upstream())
    async with client.get(at(node, path)) as response:
        assert (await response.json())["path"] == path


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_is_forwarded(method, upstream, plane, client, at):
    node = await plane(await upstream())
    async with client.request(method, at(node)) as response:
        assert (await response.json())["method"] == method


@pytest.mark.parametrize("chunked", [False, True])
async def test_fifty_megabytes_up_and_down_arrive_whole(chunked, upstream, plane, client, at):
    digests = {}

    async def take(request):
        digest, size = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            size += len(chunk)
        digests["up"] = digest.hexdigest()
        return web.json_response({"size": size})

    async def give(request):
        response = web.StreamResponse(headers={} if chunked else {"Content-Length": str(50 * MEGABYTE)})
        await response.prepare(request)
        digest = hashlib.sha256()
        for number in range(50):
            part = bytes([number]) * MEGABYTE
            digest.update(part)
            await response.write(part)
        digests["down"] = digest.hexdigest()
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_post("/", take)
    app.router.add_get("/", give)
    node = await plane(await upstream(app))
    block = b"x" * MEGABYTE

    async def body():
        for _ in range(50):
            yield block

    headers = {} if chunked else {"Content-Length": str(50 * MEGABYTE)}
    async with client.post(at(node), data=body(), headers=headers) as response:
        assert await response.json() == {"size": 50 * MEGABYTE}
    assert digests["up"] == hashlib.sha256(block * 50).hexdigest()
    digest = hashlib.sha256()
    async with client.get(at(node)) as response:
        assert ("Content-Length" in response.headers) is not chunked
        async for chunk in response.content.iter_any():
            digest.update(chunk)
    assert digest.hexdigest() == digests["down"]


async def test_a_slow_reader_holds_the_upstream_back_instead_of_filling_memory(upstream, plane, raw, head_of):
    sent = 0

    async def give(request):
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(200):
            await response.write(b"x" * MEGABYTE)
            sent += 1
        return response

    app = web.Application()
    app.router.add_get("/", give)
    node = await plane(await upstream(app))
    reader, writer = await raw(node.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await head_of(reader)
    before = -1
    while sent != before:  # until nothing moves any more
        before = sent
        await asyncio.sleep(0.5)
    assert sent < 100


async def test_a_streamed_event_arrives_before_the_stream_ends(upstream, plane, client, at):
    more = asyncio.Event()

    async def events(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await more.wait()
        await response.write(b"data: two\n\n")
        return response

    app = web.Application()
    app.router.add_get("/", events)
    node = await plane(await upstream(app), upstream_timeout_seconds=0.3)
    # As every EventSource asks. HAProxy 2.6 cannot end a time-out at the first byte: its driver goes by this header.
    asked = {"Accept": "text/event-stream"}
    async with asyncio.timeout(10), client.get(at(node), headers=asked) as response:
        assert await response.content.readany() == b"data: one\n\n"
        await asyncio.sleep(0.6)  # longer than the time in which an answer must begin: silence is no failure
        more.set()
        assert await response.content.read() == b"data: two\n\n"


async def test_an_encoded_body_is_passed_on_encoded_both_ways(upstream, plane, client, at):
    packed = gzip.compress(b"hello" * 100)

    async def give(request):
        assert await request.read() == b"hello" * 100  # the origin's own server unpacks it: so it came packed
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    app = web.Application()
    app.router.add_post("/", give)
    node = await plane(await upstream(app))
    async with client.post(at(node), data=packed, headers={"Content-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert await response.read() == packed


async def test_head_has_the_length_and_no_body(upstream, plane, raw, head_of):
    node = await plane(await upstream())
    reader, writer = await raw(node.port)
    writer.write(b"HEAD /bytes?n=777 HTTP/1.1\r\nHost: x\r\n\r\nGET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n")
    first, second = await head_of(reader), await head_of(reader)
    assert first.startswith("HTTP/1.1 200")
    assert "content-length: 777" in first.lower()
    assert second.startswith("HTTP/1.1 204")


async def test_a_client_that_expects_100_is_told_to_continue(upstream, plane, raw, head_of):
    node = await plane(await upstream())
    reader, writer = await raw(node.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert await head_of(reader) == "HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert (await head_of(reader)).startswith("HTTP/1.1 200")
    assert b'"body_bytes": 5' in await reader.read(4096)
