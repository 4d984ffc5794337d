"""A request's body on its way up: pulled by the upstream's pace, limited in size, watched for a client that stalls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from aiohttp import hdrs, web

Failure = Literal["too_large", "stalled", "client_gone"]


class BodyFailed(Exception):
    """The body did not arrive whole; ``failure`` of the body says why."""


class RequestBody:
    """The chunks of a body, and what became of it.

    ``limit`` is the time-out of the upstream's answer: it stands still while the client is the one who is waited for,
    and starts anew with every chunk that the upstream takes.
    """

    def __init__(
        self, request: web.BaseRequest, *, max_bytes: int, stall_seconds: float, answer_seconds: float
    ) -> None:
        self._request = request
        self._max = max_bytes
        self._stall = stall_seconds
        self._answer = answer_seconds
        self.limit: asyncio.Timeout | None = None
        self.failure: Failure | None = None
        self.started = False
        self.finished = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.started = True
        seen = 0
        try:
            self._continue()
            while chunk := await self._next():
                seen += len(chunk)
                if seen > self._max:
                    self._fail("too_large")
                yield chunk
        finally:
            self.finished.set()

    def _continue(self) -> None:
        request = self._request
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.version >= (1, 1):
            transport = request.transport
            if transport is not None:
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _next(self) -> bytes:
        self._answer_within(None)
        try:
            async with asyncio.timeout(self._stall):
                return await self._request.content.readany()
        except TimeoutError:
            self._fail("stalled")
        except (web.RequestPayloadError, ConnectionError):
            self._fail("client_gone")
        finally:
            self._answer_within(self._answer)
        return b""

    def _answer_within(self, seconds: float | None) -> None:
        # Once the upstream has answered, the time-out's block is over and cannot be moved.
        if self.limit is not None:
            loop = asyncio.get_running_loop()
            self.limit.reschedule(None if seconds is None else loop.time() + seconds)

    def _fail(self, failure: Failure) -> None:
        self.failure = failure
        raise BodyFailed(failure)
