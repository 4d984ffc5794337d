"""Headers on their way through: hop-by-hop ones end here, the ``X-Forwarded-*`` begin here (RFC 9110 7.6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy

from node.dataplane.blocklist import parse_address

Networks = Sequence[IPv4Network | IPv6Network]

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
# A Connection header that names one of these would take away what framing, routing or authorisation rest on.
_NEVER_BY_NAME = frozenset({"host", "content-length", "content-type", "authorization", "cookie", "set-cookie"})
# What an upstream may believe; from a peer that is not trusted it is a claim and ends here.
_CLAIMS = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port",
                     "x-real-ip"})  # fmt: skip
_SOCKET_KEYS = frozenset({"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions",
                          "sec-websocket-protocol", "sec-websocket-accept"})  # fmt: skip


def tokens(headers: CIMultiDictProxy[str], name: str) -> set[str]:
    """The comma-separated tokens of a header that may occur several times, in lower case."""
    return {part.strip().lower() for value in headers.getall(name, ()) for part in value.split(",")}


def end_to_end(headers: CIMultiDictProxy[str], *, without: Iterable[str] = ()) -> CIMultiDict[str]:
    """A copy without what belongs to one connection; several values of one name stay several."""
    dropped = _HOP_BY_HOP | (tokens(headers, hdrs.CONNECTION) - _NEVER_BY_NAME) | frozenset(without)
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        lower = name.lower()
        if lower not in dropped and not lower.startswith("proxy-") and lower != "proxy":
            kept.add(name, value)
    return kept


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Who is believed, and what the upstream is told."""

    trusted: Networks

    def is_trusted(self, address: str) -> bool:
        """Whether a peer is one of ``trusted_proxies``."""
        if not self.trusted:
            return False
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self.trusted)

    def client(self, headers: CIMultiDictProxy[str], peer: str) -> str:
        """The client's address: the peer, or behind trusted proxies the last address that none of them vouches for."""
        if not self.is_trusted(peer):
            return peer
        client = peer
        for hop in reversed(_hops(headers)):
            if parse_address(hop) is None:
                break
            client = hop
            if not self.is_trusted(hop):
                break
        return client

    def request(self, headers: CIMultiDictProxy[str], peer: str, *, socket: bool = False) -> CIMultiDict[str]:
        """The headers for the upstream. ``socket``: a WebSocket, whose handshake is the client library's own."""
        trusted = self.is_trusted(peer)
        without = {"expect"} | (_SOCKET_KEYS if socket else frozenset()) | (frozenset() if trusted else _CLAIMS)
        kept = end_to_end(headers, without=without)
        kept[hdrs.X_FORWARDED_FOR] = ", ".join([*(_hops(headers) if trusted else ()), peer])
        kept.setdefault("X-Forwarded-Proto", "https")
        if host := headers.get(hdrs.HOST):
            kept.setdefault("X-Forwarded-Host", host)
        return kept


def _hops(headers: CIMultiDictProxy[str]) -> list[str]:
    lists = headers.getall(hdrs.X_FORWARDED_FOR, ())
    return [hop for value in lists for part in value.split(",") if (hop := part.strip())]
