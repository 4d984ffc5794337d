"""Bodies and requests that nobody should send."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterator, Mapping

DEEP = b"[" * 50_000 + b"]" * 50_000
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no json": b"hello",
    "cut": b'{"node_id": "',
    "an array": b"[]",
    "null": b"null",
    "deep arrays": DEEP,
    "deep objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "a surrogate": b'{"ip": "\\ud800", "reason": "\\udfff"}',
    "no utf-8": b'{"ip": "\xff\xfe", "reason": "\xc3\x28"}',
    "a bom": b"\xef\xbb\xbf{}",
    "utf-16": '{"ip": "203.0.113.9", "reason": "x"}'.encode("utf-16"),
    "nan": b'{"size": NaN, "ip": "203.0.113.9", "reason": "x", "ttl_seconds": NaN}',
    "infinity": b'{"size": Infinity, "for_seconds": -Infinity, "ip": "203.0.113.9", "reason": "x", "x": Infinity}',
    "a huge float": b'{"size": 1e999, "for_seconds": 1e999, "ttl_seconds": 1e999, "ip": "203.0.113.9", "reason": "x"}',
    "a huge number": b'{"size": ' + b"9" * 40_000 + b', "ttl_seconds": ' + b"9" * 5_000 + b"}",
    "a key twice": b'{"ip": "203.0.113.9", "reason": "a", "ip": "198.51.100.9"}',
    "a key twice below": b'{"ip": "203.0.113.9", "reason": "a", "metadata": {"a": 1, "a": 2}}',
    "nul bytes": b'{"ip": "203.0.113.9\\u0000", "reason": "\\u0000"}',
    "many keys": b"{" + b",".join(b'"k%d": %d' % (n, n) for n in range(4_000)) + b"}",
    "a long text": b'{"reason": "' + b"x" * 60_000 + b'", "ip": "203.0.113.9"}',
    "too large": b'{"reason": "' + b"x" * 3_000_000 + b'"}',
}
KINDS = ("application/json", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16",
         "multipart/form-data; boundary=x", "application/xml", "\x7f")  # fmt: skip


def _request(head: bytes, headers: bytes = b"", body: bytes = b"") -> bytes:
    return head + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers + b"\r\n" + body


STREAMS: dict[str, bytes] = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "zeros": bytes(4096),
    "a long header": _request(b"GET /", b"X: " + b"y" * 1_000_000 + b"\r\n"),
    "many headers": _request(b"GET /", b"".join(b"X-%d: y\r\n" % n for n in range(20_000))),
    "a long line": b"GET /" + b"a" * 500_000 + b" HTTP/1.1\r\n\r\n",
    "two lengths": _request(b"POST /", b"Content-Length: 1\r\nContent-Length: 2\r\n", b"{}"),
    "a length and chunks": _request(b"POST /", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "broken chunks": _request(b"POST /", b"Transfer-Encoding: chunked\r\n", b"zzz\r\nxx"),
    "a huge chunk": _request(b"POST /", b"Transfer-Encoding: chunked\r\n", b"fffffffffffffff\r\n" + b"x" * 4096),
    "a huge length": _request(b"POST /", b"Content-Length: 99999999999999999999\r\n", b"x" * 4096),
    "a folded header": _request(b"GET /", b"X: a\r\n\tb\r\n"),
    "a bare newline": b"GET / HTTP/1.1\nHost: x\n\n",
    "http 0.9": b"GET /\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an upgrade": _request(b"GET /", b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n"),
    "expect": _request(b"POST /", b"Expect: something\r\nContent-Length: 2\r\n", b"{}"),
    "pipelined": _request(b"GET /healthz") * 500,
    "gzip": _request(b"POST /api/v1/rules/block_ip", b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
                     b"Content-Length: 8\r\n", b"\x1f\x8b\x08\x00zzzz"),
}  # fmt: skip


def noise(seed: int, count: int) -> Iterator[bytes]:
    """Requests with bytes changed, cut out or doubled at random places."""
    random_ = random.Random(seed)
    for _ in range(count):
        name = random_.choice(
            [b"GET /api/v1/nodes", b"POST /api/v1/nodes/heartbeat", b"POST /provision", b"GET /x?a=b"]
        )
        body = random_.choice(list(BODIES.values())[:20])[:2000]
        length = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        raw = bytearray(_request(name, length, body))
        for _ in range(random_.randrange(1, 8)):
            place = random_.randrange(len(raw))
            match random_.randrange(3):
                case 0:
                    raw[place] = random_.randrange(256)
                case 1:
                    del raw[place : place + random_.randrange(1, 40)]
                case _:
                    raw[place:place] = raw[place : place + random_.randrange(1, 40)]
            if not raw:
                raw = bytearray(b"x")
        yield bytes(raw)


async def throw(port: int, raw: bytes, *, tls: bool, quiet: float = 0.4) -> bytes:
    """Send bytes, and read what comes until the peer closes or says nothing more for a moment."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 20)
    answer = b""
    try:
        async with asyncio.timeout(5):
            writer.write(raw)
            await writer.drain()
        while True:
            async with asyncio.timeout(quiet):
                part = await reader.read(65536)
            if not part:
                break
            answer += part
    except (TimeoutError, OSError):
        pass
    finally:
        writer.transport.abort()
    return answer


async def throw_all(listeners: Mapping[str, int], raw: bytes, *, times: int) -> None:
    """The same bytes at every listener, so many times at once."""
    await asyncio.gather(
        *(throw(port, raw, tls=name == "proxy") for name, port in listeners.items() for _ in range(times))
    )
