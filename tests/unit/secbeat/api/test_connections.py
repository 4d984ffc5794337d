"""Connections that stop in the middle of something, that are no HTTP, or that are too many."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json

import pytest
import pytest_asyncio
from aiohttp import web

from secbeat.api import Route, build_app, connections, listen, read_body, requests
from secbeat.api.connections import Server
from secbeat.api.headers import STRICT
from secbeat.wire.base import Wire

HEAD = b"POST /things HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


class Thing(Wire):
    name: str


async def echo(request):
    return web.json_response({"name": (await read_body(request, Thing)).name})


async def huge(_request):
    return web.Response(body=b"x" * 50_000_000)


ROUTES = [
    Route(method="POST", path="/things", handler=echo, summary="Echo", scope=None, request=Thing),
    Route(method="GET", path="/huge", handler=huge, summary="Huge", scope=None),
]


@pytest_asyncio.fixture
async def listener():
    made = await listen(build_app("test", ROUTES, tokens=lambda _token: None), "127.0.0.1:0", shutdown_timeout=0.2)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def dial(listener):
    writers = []

    async def open_one():
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, limit=65536)
        writers.append(writer)
        return reader, writer

    yield open_one
    for writer in writers:
        writer.transport.abort()


async def answer_to(dial, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await dial()
    writer.write(raw)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers.get("Content-Length", 0)))
    return int(lines[0].split()[1]), headers, body


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\x00: y\r\n\r\n",
        b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(500)) + b"\r\n",
    ],
    ids=["tls", "version", "bytes", "two lengths", "negative", "long header", "long line", "many headers"],
)
async def test_what_is_no_http_is_answered_with_a_problem_and_every_header(dial, raw):
    status, headers, body = await answer_to(dial, raw)
    problem = json.loads(body)
    assert (status, problem["code"], problem["status"]) == (400, "REQUEST_MALFORMED", 400)
    assert headers["Content-Type"].startswith("application/problem+json")
    assert STRICT.items() <= headers.items()
    assert headers["Server"] == "secbeat"


async def test_broken_chunks_are_a_problem_and_no_failure(dial, caplog):
    raw = HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
    status, _, body = await answer_to(dial, raw)
    assert (status, json.loads(body)["code"]) == (400, "REQUEST_MALFORMED")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_body_that_does_not_come_is_408_and_the_connection_ends(dial, monkeypatch):
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.05)
    reader, writer = await dial()
    writer.write(HEAD + b'Content-Length: 100\r\n\r\n{"name":')
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    assert b" 408 " in head.split(b"\r\n")[0]
    assert b"Connection: close" in head


@pytest.mark.parametrize("sent", [b"", b"POST /thi", HEAD], ids=["nothing", "a line", "a head"])
async def test_a_head_that_does_not_end_is_cut(dial, monkeypatch, sent):
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    reader, writer = await dial()
    writer.write(sent)
    async with asyncio.timeout(10):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


async def test_a_connection_that_waits_between_two_requests_is_not_cut(dial, monkeypatch):
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    reader, writer = await dial()
    request = HEAD + b'Content-Length: 12\r\n\r\n{"name":"a"}'
    for _ in range(2):
        writer.write(request)
        async with asyncio.timeout(10):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len('{"name": "a"}'))
        await asyncio.sleep(0.3)  # longer than a head may take, which no head does here


async def test_a_client_that_does_not_read_is_cut_and_what_waits_for_it_is_freed(listener, dial, monkeypatch):
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(connections, "STUCK_SECONDS", 0.2)
    _, writer = await dial()
    writer.transport.pause_reading()
    writer.write(b"GET /huge HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    server = listener.runner.server
    assert isinstance(server, Server)
    async with asyncio.timeout(10):
        while not server.cut or server.connections:  # noqa: ASYNC110 - the kernel's buffers decide when
            await asyncio.sleep(0.02)


async def test_beyond_the_largest_number_a_connection_is_closed_at_once(listener, dial):
    listener.runner.server._most = 2
    first, _ = await dial(), await dial()
    reader, _ = await dial()
    async with asyncio.timeout(10):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    first[1].write(HEAD + b'Content-Length: 12\r\n\r\n{"name":"a"}')
    async with asyncio.timeout(10):
        assert b" 200 " in await first[0].readuntil(b"\r\n\r\n")


async def test_what_was_unreadable_is_freed_at_once_and_not_when_a_collection_comes(listener, dial):
    def alive():
        return {id(one) for one in gc.get_objects() if isinstance(one, connections.Connection)}

    gc.collect()
    kept_by_earlier_tests = alive()
    gc.disable()
    try:
        for _ in range(4):
            reader, writer = await dial()
            writer.write(b"GET /" + b"a" * 500_000 + b" HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    await reader.read(-1)
            writer.transport.abort()
        async with asyncio.timeout(10):
            while listener.runner.server.connections:  # noqa: ASYNC110 - the peers' ends decide when
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert alive() <= kept_by_earlier_tests
    finally:
        gc.enable()
