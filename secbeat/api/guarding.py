"""Who may call: the checks against web pages of others, bearer tokens, what loopback may do without one.

A page served elsewhere runs in a browser on a machine that may be trusted here. By a name of its own that resolves to
our address (DNS rebinding) it meets the Host check; by our own address it says where it comes from (``Origin``,
``Sec-Fetch-Site``); and no form or script may send JSON across sites without asking first, which nobody answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address

from aiohttp import web

from secbeat.api.requests import ANONYMOUS, LOOPBACK, PRINCIPAL, bearer, fail
from secbeat.api.routes import Route
from secbeat.auth import FailureLimiter, Principal, TokenBook

TokenCheck = Callable[[str], Principal | None]
_ALWAYS_REACHABLE = frozenset({"/healthz", "/readyz"})


class HostCheck:
    """Which values of the Host header are this service's own."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        # Per instance, so that one service's names never answer for another's.
        self.allows = lru_cache(maxsize=1024)(self._allows)

    def _allows(self, header: str) -> bool:
        name = host_name(header)
        # Rebinding needs a name; whoever dials an address reaches what the listen address allows.
        return name == "localhost" or name in self._allowed or _is_address(name)

    def check(self, request: web.BaseRequest) -> None:
        """End the request unless its Host is one of ours.

        Raises:
            ApiError: 403 HOST_REFUSED.
        """
        header = request.headers.get("Host", "")
        if not self.allows(header) and request.path not in _ALWAYS_REACHABLE:
            fail("HOST_REFUSED", 403, f"Host is {header[:100]!r}")


def from_a_page(request: web.BaseRequest) -> bool:
    """Whether a browser sends it, as far as headers tell."""
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def check_page(request: web.BaseRequest) -> None:
    """End the request if a page served elsewhere sends it; following a link is no such request.

    Raises:
        ApiError: 403 ORIGIN_REFUSED.
    """
    headers = request.headers
    site, origin = headers.get("Sec-Fetch-Site", "none").lower(), headers.get("Origin")
    ours = origin is None or origin.partition("://")[2].lower() == headers.get("Host", "").lower()
    if ours and site in {"none", "same-origin"}:
        return
    if origin is None and request.method in {"GET", "HEAD"} and headers.get("Sec-Fetch-Mode") == "navigate":
        return
    fail("ORIGIN_REFUSED", 403, f"Origin is {(origin or 'absent')[:100]!r}, Sec-Fetch-Site {site[:20]!r}")


def host_name(header: str) -> str:
    """The Host header without its port, lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def is_loopback(address: str | None) -> bool:
    """Whether a TCP peer's address is this machine."""
    try:
        return ip_address(address or "").is_loopback
    except ValueError:
        return False


def from_loopback(request: web.BaseRequest) -> bool:
    """Whether the TCP peer is this machine (no header is asked)."""
    return is_loopback(request.remote)


class Guard:
    """Turns a request on a route into its caller, or refuses it.

    Failed logins are limited per address. A valid token always passes, and ends the limit: all of a machine share one
    address, and a script with an old token must not lock its operator out. (The tokens are random; the limit spares
    the log and the audit, not the secret.)
    """

    def __init__(self, tokens: TokenBook | TokenCheck, *, limiter: FailureLimiter | None = None) -> None:
        self._find = tokens.check if isinstance(tokens, TokenBook) else tokens
        self._limiter = limiter or FailureLimiter()

    def caller(self, request: web.Request, route: Route) -> Principal:
        """Who calls.

        Raises:
            ApiError: 401 NOT_AUTHENTICATED, 403 NOT_AUTHORISED, 429 TOO_MANY_FAILURES.
        """
        if route.scope is None:
            return LOOPBACK if from_loopback(request) else ANONYMOUS
        token = bearer(request)
        if token is None and route.loopback_open and from_loopback(request):
            return LOOPBACK
        found = self._find(token) if token is not None else None
        if found is None:
            return self._refuse(request, sent=token is not None)
        self._limiter.succeeded(request.remote or "")
        if not found.may(route.scope):
            request[PRINCIPAL] = found  # refused, and yet it is known who asked
            fail("NOT_AUTHORISED", 403, f"{found.name} has scope {found.scope}, this needs {route.scope}")
        return found

    def _refuse(self, request: web.Request, *, sent: bool) -> Principal:
        address = request.remote or ""
        if self._limiter.blocked(address):
            wait = self._limiter.retry_after(address)
            return fail("TOO_MANY_FAILURES", 429, f"from {address}", headers={"Retry-After": str(wait)})
        self._limiter.failed(address)
        why = "the token that was sent is unknown or has expired" if sent else "a bearer token is needed"
        return fail("NOT_AUTHENTICATED", 401, why, headers={"WWW-Authenticate": "Bearer"})
