"""Responses of the proxy: the upstream's as they came, and short texts of its own."""

from __future__ import annotations

from aiohttp import hdrs, web
from multidict import CIMultiDict

_COALESCE_BYTES = 64 * 1024
_ADDED = (hdrs.CONTENT_TYPE, hdrs.SERVER)


class UpstreamResponse(web.StreamResponse):
    """Carries the upstream's status, reason and headers; nothing is added that the upstream did not say."""

    def __init__(self, status: int, reason: str | None, headers: CIMultiDict[str]) -> None:
        super().__init__(status=status, reason=reason, headers=headers)
        length = self.content_length
        # A short answer leaves in one segment; one of unknown length may be a stream whose headers are waited for.
        self._send_headers_immediately = length is None or length > _COALESCE_BYTES

    async def _prepare_headers(self) -> None:
        absent = [name for name in _ADDED if name not in self.headers]
        await super()._prepare_headers()
        for name in absent:
            self.headers.popall(name, None)


def short(status: int, text: str) -> web.Response:
    """An answer of the proxy itself: one line of text, nothing about what stands behind it."""
    return web.Response(
        status=status, text=f"{text}\n", headers={hdrs.CACHE_CONTROL: "no-store", hdrs.SERVER: "secbeat"}
    )


def close_after(response: web.StreamResponse) -> None:
    """Announce that the connection ends with this response.

    The header alone: the client closes. To close under a client that has sent its next request already would lose it.
    """
    response.headers[hdrs.CONNECTION] = "close"
