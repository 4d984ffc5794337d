"""One attempt to deliver a notification over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import aiohttp

from secbeat import __version__


class Poster(Protocol):
    """Whoever can carry a signed body to the receiver."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        """The receiver's status; None: it was not reached. Never raises but for cancellation."""
        ...

    async def close(self) -> None: ...


class HttpPoster:
    """Over HTTP: no redirects, no proxy of the environment, and an end to every wait."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False, auto_decompress=False)
        own = {"Content-Type": "application/json", "User-Agent": f"secbeat/{__version__}", **headers}
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.post(url, data=body, headers=own, allow_redirects=False) as response,
            ):
                return response.status
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
