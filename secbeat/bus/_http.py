"""A GET on the NATS server's monitoring port; an HTTP library would be more than it needs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

_MAX_BYTES = 1024 * 1024


async def get_json(host: str, port: int, path: str, *, timeout: float = 1.0) -> Any:
    """The JSON that a monitoring route answers with status 200.

    Raises:
        OSError: no answer in time, another status, or no JSON.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
                await writer.drain()
                answer = bytearray()
                while len(answer) < _MAX_BYTES and (chunk := await reader.read(65536)):
                    answer += chunk
            finally:
                writer.close()
    except TimeoutError:
        raise OSError(f"no answer from {host}:{port} in {timeout:g} s") from None
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].split(b" ")
    if status[1:2] != [b"200"]:
        raise OSError(f"{path} answered {status[1:2]}")
    try:
        return json.loads(body)
    except ValueError:
        raise OSError(f"{path} did not answer JSON") from None
