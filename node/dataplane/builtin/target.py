"""The request's target as the upstream gets it: byte for byte, with its percent-encoding."""

from __future__ import annotations

from aiohttp import hdrs
from yarl import URL


def upstream_url(backend: str, method: str, raw: str) -> URL | None:
    """The URL to ask for, or None when the target cannot be forwarded.

    Args:
        backend: ``http://host:port``, perhaps with a path that is put in front.
        raw: the request line's target: origin form, or absolute form whose authority is ignored (Host counts).
    """
    if method == hdrs.METH_CONNECT:
        return None
    if not raw.startswith("/"):
        _, separator, rest = raw.partition("://")
        if not separator:
            return None
        slash = rest.find("/")
        raw = rest[slash:] if slash >= 0 else "/"
    return URL(backend.rstrip("/") + raw.partition("#")[0], encoded=True)
