"""Bytes as they were recorded, and bytes over a socket: no client library between the test and the wire."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).with_name("fixtures")


@dataclass(frozen=True)
class Message:
    """One HTTP request or response. Header names as they came; ``first`` is the first line."""

    first: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.first.split()[1])

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.headers]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


def recorded(name: str) -> bytes:
    """A fixture's bytes."""
    return (FIXTURES / name).read_bytes()


def request(name: str, place: int = 0) -> Message:
    """The recorded request of that name."""
    return split(recorded(f"{name}.request.bin"))[place]


def response(name: str, place: int = 0) -> Message:
    """What the original answered."""
    return split(recorded(f"{name}.response.bin"))[place]


def split(stream: bytes) -> list[Message]:
    """The messages on one connection."""
    found = []
    while stream:
        head, _, rest = stream.partition(b"\r\n\r\n")
        first, headers = _head(head)
        length = int(next((value for name, value in headers if name.lower() == "content-length"), "0"))
        found.append(Message(first, headers, rest[:length]))
        stream = rest[length:]
    return found


def _head(head: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    return first, tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))


async def read_message(reader: asyncio.StreamReader, *, to_head: bool = False) -> Message:
    """The next message of a connection."""
    first, headers = _head((await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n"))
    length = int(next((value for name, value in headers if name.lower() == "content-length"), "0"))
    return Message(first, headers, b"" if to_head else await reader.readexactly(length))


async def exchange(port: int, sent: bytes, *, source: str = "127.0.0.1", answers: int = 1) -> list[Message]:
    """Send bytes on one connection, from a loopback address, and read so many answers from it."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(sent)
        found = [await read_message(reader) for _ in range(answers)]
        writer.close()
        await writer.wait_closed()
    return found


async def ask(port: int, sent: bytes | Message, *, source: str = "127.0.0.1") -> Message:
    """Send one request, read its answer."""
    return (await exchange(port, sent if isinstance(sent, bytes) else encode(sent), source=source))[0]


def encode(message: Message) -> bytes:
    """The bytes of a message; its length is what its body has."""
    lines = [message.first]
    for name, value in message.headers:
        lines.append(f"{name}: {len(message.body) if name.lower() == 'content-length' else value}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + message.body


def original(method: str, path: str, body: Any = None, *, token: str | None = None) -> Message:
    """A request as the original's HTTP client writes it: lower case, no User-Agent, in its order."""
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    headers = [] if token is None else [("authorization", f"Bearer {token}")]
    headers += [("content-type", "application/json")] if body is not None else []
    headers += [("accept", "*/*"), ("host", "127.0.0.1:3031")]
    headers += [("content-length", str(len(raw)))] if body is not None else []
    return Message(f"{method} {path} HTTP/1.1", tuple(headers), raw)
