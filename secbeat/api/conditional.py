"""Conditional GET: an answer of moderate size has an ETag, and whoever has it already gets 304 without a body."""

from __future__ import annotations

import hashlib

from aiohttp import web

_LARGEST = 256 * 1024  # bytes; hashing more would cost the loop a millisecond


def unless_known(request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
    """``response`` with an ETag of its bytes, or 304 if the client's ``If-None-Match`` names that one.

    What has an ETag of its own, is streamed, or is no success is left alone.
    """
    if request.method not in {"GET", "HEAD"} or response.status != 200 or "ETag" in response.headers:
        return response
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes) or len(body) > _LARGEST:
        return response
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    response.headers["ETag"] = tag
    known = [one.strip().removeprefix("W/") for one in request.headers.get("If-None-Match", "").split(",")]
    if tag not in known and "*" not in known:
        return response
    kept = {name: value for name, value in response.headers.items() if name in {"ETag", "Link"}}
    return web.Response(status=304, headers=kept)
