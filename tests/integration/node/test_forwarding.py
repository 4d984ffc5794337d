from __future__ import annotations

import asyncio
import gzip
import hashlib
import time

import aiohttp
import pytest
from aiohttp import web

from node.dataplane.blocklist import Blocklist

MEGABYTE = 1 << 20


def values(seen: dict, name: str) -> list[str]:
    return [value for key, value in seen["headers"] if key.lower() == name.lower()]


async def head_of(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(10):
        return (await reader.readuntil(b"\r\n\r\n")).decode()


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


async def test_a_slow_reader_holds_the_upstream_back_instead_of_filling_memory(upstream, plane, raw):
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
    async with asyncio.timeout(10), client.get(at(node)) as response:
        assert await response.content.readany() == b"data: one\n\n"
        await asyncio.sleep(0.6)  # longer than the time in which an answer must begin: silence is no failure
        more.set()
        assert await response.content.read() == b"data: two\n\n"


async def test_the_upstream_is_let_go_of_when_the_client_of_a_silent_stream_leaves(upstream, plane, client, at, until):
    gone = asyncio.Event()

    async def events(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await until(lambda: request.transport is None)
        gone.set()
        return response

    app = web.Application()
    app.router.add_get("/", events)
    node = await plane(await upstream(app))
    response = await client.get(at(node))
    await response.content.readany()
    response.close()
    async with asyncio.timeout(10):
        await gone.wait()
        await until(lambda: not node.in_flight)


async def test_hop_by_hop_headers_end_at_the_proxy_in_both_directions(upstream, plane, raw):
    async def give(request):
        seen.extend(request.headers.items())
        return web.Response(
            text="x",
            headers={
                "Connection": "X-Down",
                "X-Down": "1",
                "Proxy-Authenticate": "no",
                "Keep-Alive": "timeout=5",
                "X-End": "1",
            },
        )

    seen: list = []
    app = web.Application()
    app.router.add_route("*", "/", give)
    node = await plane(await upstream(app))
    reader, writer = await raw(node.port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\n"
        b"Keep-Alive: 9\r\nUpgrade: h2c\r\nProxy-Authorization: Basic eDp5\r\nProxy: http://evil\r\nTrailer: X\r\n"
        b"X-Kept: a\r\nX-Kept: b\r\n\r\n"
    )
    answer = (await head_of(reader)).lower()
    names = [name.lower() for name, _ in seen]
    for dropped in ("connection", "x-secret", "te", "keep-alive", "upgrade", "proxy-authorization", "proxy", "trailer"):
        assert dropped not in names, dropped
    assert [value for name, value in seen if name.lower() == "x-kept"] == ["a", "b"]
    assert [value for name, value in seen if name.lower() == "host"] == ["shop.example"]
    assert "x-end: 1" in answer
    for dropped in ("x-down", "proxy-authenticate", "keep-alive"):
        assert dropped not in answer, dropped


async def test_a_connection_header_cannot_take_away_host_or_length(upstream, plane, raw):
    node = await plane(await upstream())
    reader, writer = await raw(node.port)
    writer.write(
        b"POST /x HTTP/1.1\r\nHost: a.example\r\nConnection: Host, Content-Length, Authorization\r\n"
        b"Authorization: Bearer t\r\nContent-Length: 3\r\n\r\nabc"
    )
    await head_of(reader)
    body = (await reader.read(4096)).decode()
    assert '"body_bytes": 3' in body
    assert "a.example" in body
    assert "Bearer t" in body


async def test_a_client_cannot_claim_to_be_forwarded(upstream, plane, client, at):
    node = await plane(await upstream())
    claims = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "http",
        "X-Real-IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
    }
    async with client.get(at(node), headers=claims) as response:
        seen = await response.json()
    assert values(seen, "X-Forwarded-For") == ["127.0.0.1"]
    assert values(seen, "X-Forwarded-Proto") == ["https"]
    assert values(seen, "X-Forwarded-Host") == [f"127.0.0.1:{node.port}"]
    assert values(seen, "X-Real-IP") == values(seen, "Forwarded") == []


async def test_a_trusted_proxy_is_believed_and_appended_to(upstream, plane, client, at):
    node = await plane(await upstream(), trusted_proxies=["127.0.0.0/8"])
    async with client.get(at(node), headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http"}) as response:
        seen = await response.json()
    assert values(seen, "X-Forwarded-For") == ["6.6.6.6, 127.0.0.1"]
    assert values(seen, "X-Forwarded-Proto") == ["http"]


async def test_nothing_is_added_to_what_client_and_upstream_say(upstream, plane, raw):
    async def give(request):
        seen.extend(name.lower() for name in request.headers)
        response = web.StreamResponse(headers={"Content-Length": "1", "Server": "origin/9"})
        await response.prepare(request)
        await response.write(b"x")
        return response

    seen: list = []
    app = web.Application()
    app.router.add_route("*", "/", give)
    node = await plane(await upstream(app))
    reader, writer = await raw(node.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
    answer = (await head_of(reader)).lower()
    assert set(seen) == {"host", "content-length", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
    assert "server: origin/9" in answer


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


async def test_several_set_cookie_headers_stay_several(upstream, plane, client, at):
    async def give(_request):
        response = web.Response()
        response.headers.add("Set-Cookie", "a=1; Path=/")
        response.headers.add("Set-Cookie", "b=2; HttpOnly")
        return response

    app = web.Application()
    app.router.add_get("/", give)
    node = await plane(await upstream(app))
    async with client.get(at(node)) as response:
        assert response.headers.getall("Set-Cookie") == ["a=1; Path=/", "b=2; HttpOnly"]


async def test_head_has_the_length_and_no_body(upstream, plane, raw):
    node = await plane(await upstream())
    reader, writer = await raw(node.port)
    writer.write(b"HEAD /bytes?n=777 HTTP/1.1\r\nHost: x\r\n\r\nGET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n")
    first, second = await head_of(reader), await head_of(reader)
    assert first.startswith("HTTP/1.1 200")
    assert "content-length: 777" in first.lower()
    assert second.startswith("HTTP/1.1 204")


async def test_a_client_that_expects_100_is_told_to_continue(upstream, plane, raw):
    node = await plane(await upstream())
    reader, writer = await raw(node.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert await head_of(reader) == "HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert (await head_of(reader)).startswith("HTTP/1.1 200")
    assert b'"body_bytes": 5' in await reader.read(4096)


async def test_a_body_over_the_limit_is_refused_whether_announced_or_not(upstream, plane, client, at):
    node = await plane(await upstream(), max_body_bytes=1000)

    async def body():
        for _ in range(20):
            yield b"x" * 100

    async with client.post(at(node), data=b"x" * 1001) as response:
        assert response.status == 413
    async with client.post(at(node), data=body()) as response:
        assert response.status == 413
    async with client.post(at(node), data=b"x" * 1000) as response:
        assert response.status == 200


async def test_no_upstream_is_502_and_a_slow_one_504(upstream, plane, client, at, unused_port):
    dead = await plane(f"http://127.0.0.1:{unused_port()}")
    async with client.get(at(dead)) as response:
        assert (response.status, await response.text()) == (502, "the upstream cannot be reached\n")
    slow = await plane(await upstream(), upstream_timeout_seconds=0.2)
    async with client.get(at(slow, "/slow?ms=3000")) as response:
        assert (response.status, await response.text()) == (504, "the upstream did not answer in time\n")
    async with client.post(at(slow, "/slow?ms=3000"), data=b"x") as response:
        assert response.status == 504


async def test_a_client_slower_than_the_upstreams_limit_may_finish_its_body(upstream, plane, client, at):
    node = await plane(await upstream(), upstream_timeout_seconds=0.3)

    async def body():
        for _ in range(4):
            await asyncio.sleep(0.2)
            yield b"x"

    async with client.post(at(node), data=body()) as response:
        assert (await response.json())["body_bytes"] == 4


async def test_a_client_that_stalls_in_its_body_is_refused(upstream, plane, raw):
    node = await plane(await upstream(), idle_timeout_seconds=0.3)
    reader, writer = await raw(node.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
    assert (await head_of(reader)).startswith("HTTP/1.1 408")


async def test_an_answer_that_breaks_off_looks_broken_to_the_client(upstream, plane, client, at):
    async def give(request):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        await asyncio.sleep(0.05)
        request.transport.abort()
        return response

    app = web.Application()
    app.router.add_get("/", give)
    node = await plane(await upstream(app))
    with pytest.raises(aiohttp.ClientError):
        async with client.get(at(node)) as response:
            await response.read()


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
async def test_only_an_idempotent_request_is_tried_again_on_a_connection_found_dead(method, status, plane, client, at):
    """An upstream that answers one request per connection and then resets it while the next one is on its way."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        first = len(connections) == 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if first:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        node = await plane(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with client.get(at(node)) as response:
            assert response.status == 200
        async with client.request(method, at(node)) as response:
            assert response.status == status
        assert len(connections) == (2 if method == "GET" else 1)
    finally:
        server.close()
        for writer in connections:
            writer.transport.abort()


async def test_the_upstreams_connection_is_used_again(upstream, plane, client, at):
    ports = set()

    async def give(request):
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.Response(text=str(len(await request.read())))

    app = web.Application()
    app.router.add_route("*", "/", give)
    node = await plane(await upstream(app))
    for number in range(6):
        async with client.request("POST" if number % 2 else "GET", at(node), data=b"x" * number) as response:
            assert await response.text() == str(number)
    assert len(ports) == 1


async def test_an_early_answer_to_a_large_upload_is_delivered_and_the_next_request_works(upstream, plane, raw):
    async def refuse(_request):
        return web.Response(status=401, text="no")

    async def fine(_request):
        return web.Response(text="fine")

    app = web.Application()
    app.router.add_post("/", refuse)
    app.router.add_get("/", fine)
    node = await plane(await upstream(app))
    reader, writer = await raw(node.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 1000)
    assert (await head_of(reader)).startswith("HTTP/1.1 401")
    assert await reader.readexactly(2) == b"no"
    writer.write(b"x" * 299_000 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await head_of(reader)).startswith("HTTP/1.1 200")


async def test_a_slowloris_is_cut_off_in_either_form(upstream, plane, raw):
    node = await plane(await upstream(), header_timeout_seconds=0.4)
    began = time.monotonic()
    (silent, _), (partial, writer) = await raw(node.port), await raw(node.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")

    async def drip():
        while True:
            writer.write(b"a")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    try:
        async with asyncio.timeout(10):
            assert await silent.read() == b""
            assert (await partial.read()).startswith(b"HTTP/1.1 408")
    finally:
        dripping.cancel()
    assert time.monotonic() - began >= 0.4


async def test_a_second_slow_request_on_a_connection_is_cut_off_as_well(upstream, plane, raw):
    node = await plane(await upstream(), header_timeout_seconds=0.4)
    reader, writer = await raw(node.port)
    writer.write(b"GET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n")
    await head_of(reader)
    await asyncio.sleep(0.8)  # idle between two requests is no slow header
    writer.write(b"GET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n")
    await head_of(reader)
    writer.write(b"GET / HT")
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 408")


async def test_an_idle_connection_is_closed_after_its_time(upstream, plane, raw):
    node = await plane(await upstream(), idle_timeout_seconds=0.3)
    reader, writer = await raw(node.port)
    writer.write(b"GET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n")
    await head_of(reader)
    async with asyncio.timeout(10):
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * 70_000 + b"\r\n\r\n", "431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(2000)) + b"\r\n", "4"),
        (b"NONSENSE\r\n\r\n", "400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "400"),
        (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n", "405"),
    ],
)
async def test_malformed_and_oversized_requests_are_refused_by_the_proxy_itself(text, status, upstream, plane, raw):
    seen = []

    async def give(request):
        seen.append(request)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", give)
    node = await plane(await upstream(app))
    reader, writer = await raw(node.port)
    writer.write(text)
    assert (await head_of(reader)).split()[1].startswith(status)
    assert not seen


async def test_connections_over_the_limit_get_503_and_those_within_it_are_served(upstream, plane, raw):
    node = await plane(await upstream(), max_connections=2)
    request = b"GET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n"
    first, second, third = [await raw(node.port) for _ in range(3)]
    for reader, writer in (first, second):  # while the third is connected
        writer.write(request)
        assert (await head_of(reader)).startswith("HTTP/1.1 204")
    reader, writer = third
    writer.write(request)
    head = await head_of(reader)
    assert head.startswith("HTTP/1.1 503")
    assert "connection: close" in head.lower()
    assert await reader.read() == b"too many connections\n"
    assert node.stats().over_limit == 1


async def test_a_blocked_client_gets_403_and_can_still_be_unblocked(upstream, plane, client, at):
    node = await plane(await upstream())
    node.set_blocklist(Blocklist(1, ["10.0.0.0/8", "127.0.0.0/24"]))
    async with client.get(at(node)) as response:
        assert response.status == 403
    async with client.get(at(node, "/.secbeat/ready")) as response:
        assert response.status == 200
    node.set_blocklist(Blocklist(2, ["10.0.0.0/8"]))
    async with client.get(at(node)) as response:
        assert response.status == 200
    assert node.stats().blocked == 1


async def test_behind_a_trusted_proxy_the_client_is_blocked_and_not_the_proxy(upstream, plane, client, at):
    node = await plane(await upstream(), trusted_proxies=["127.0.0.0/8"])
    node.set_blocklist(Blocklist(1, ["6.6.6.6"]))
    async with client.get(at(node), headers={"X-Forwarded-For": "7.7.7.7, 6.6.6.6"}) as response:
        assert response.status == 403
    async with client.get(at(node), headers={"X-Forwarded-For": "6.6.6.6, 7.7.7.7"}) as response:
        assert response.status == 200


async def test_readiness_is_answered_by_the_node_itself(plane, client, at, unused_port):
    node = await plane(f"http://127.0.0.1:{unused_port()}")
    async with client.get(at(node, "/.secbeat/ready")) as response:
        assert (response.status, await response.text()) == (200, "ready\n")
    node.begin_drain()
    async with client.get(at(node, "/.secbeat/ready")) as response:
        assert response.status == 503
        assert response.headers["Connection"] == "close"


async def test_a_failing_handler_shows_nothing_of_its_insides(upstream, plane, client, at, caplog):
    node = await plane(await upstream())
    node._blocklist = None  # a planted defect
    async with client.get(at(node)) as response:
        assert response.status == 500
        assert await response.text() == "500 internal error\n"
    assert "AttributeError" in caplog.text
