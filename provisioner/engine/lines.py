"""Lines of any length from a pipe: asyncio's own reader has a limit per line and no way past it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

_HIGH_WATER_BYTES = 32 << 20


class PipeLines(asyncio.Protocol):
    """Lines of any length from a pipe; stops reading while too much lies unread."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._lines: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._paused = False
        self._changed = asyncio.Event()
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)  # noqa: S101 - what connect_read_pipe gives
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._parts.append(part)
            line = b"".join(self._parts)
            self._parts.clear()
            self._lines.append(line)
            self._held += len(line)
        if rest:
            self._parts.append(rest)
        if whole:
            self._changed.set()
        if self._held > _HIGH_WATER_BYTES and self._transport is not None and not self._paused:
            self._transport.pause_reading()
            self._paused = True

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._parts:
            self._lines.append(b"".join(self._parts))
            self._parts.clear()
        self._ended = True
        self._changed.set()

    def close(self) -> None:
        """Let the pipe go."""
        if self._transport is not None:
            self._transport.close()

    async def read(self) -> AsyncIterator[bytes]:
        """Line by line, without their ends, until the other side has closed."""
        while True:
            while self._lines:
                line = self._lines.popleft()
                self._held -= len(line)
                if self._paused and self._held < _HIGH_WATER_BYTES // 2 and self._transport is not None:
                    self._paused = False
                    self._transport.resume_reading()
                yield line
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()
