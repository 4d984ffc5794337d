"""The headers of every answer: data that is never sniffed, cached, framed, embedded or referred from."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

STRICT: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


async def security_headers(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Set them, unless the handler has set its own; and do not tell which server answers."""
    headers = response.headers
    for name, value in STRICT.items():
        headers.setdefault(name, value)
    headers.popall("Server", None)
