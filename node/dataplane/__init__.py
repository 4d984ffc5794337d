"""The data plane behind a Protocol: what forwards traffic is a driver, what the agent and the drain need of it is here.

The order in which a drain calls it: ``begin_drain`` (still serving), ``close_listener``, ``settle``, ``end``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from node.dataplane.blocklist import Blocklist
from secbeat.settings import NodeSettings


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters since the start, which only grow, and gauges as they are now."""

    requests: int = 0
    proxied: int = 0
    server_errors: int = 0
    http_errors: int = 0
    blocked: int = 0
    over_limit: int = 0
    handshakes: int = 0
    upgraded: int = 0
    connections: int = 0
    in_flight: int = 0
    blocklist_size: int = 0
    blocklist_version: int = 0


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Latency in milliseconds over an interval; a value is at most 5 % above the true one."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0


class DataPlane(Protocol):
    """A driver that forwards traffic."""

    @property
    def port(self) -> int:
        """The bound port; valid after ``start``."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests and upgraded connections that are being served now."""
        ...

    @property
    def draining(self) -> bool: ...

    @property
    def processes(self) -> Sequence[int]:
        """The ids of processes beside this one that carry the traffic: their load is the node's."""
        ...

    async def start(self) -> None:
        """Listen. Raises ConfigError: PORT_IN_USE, ADDRESS_UNAVAILABLE, SECRET_UNREADABLE."""
        ...

    def begin_drain(self) -> None:
        """``/.secbeat/ready`` answers 503 and every response carries ``Connection: close``; all is still served."""
        ...

    def cancel_drain(self) -> None:
        """Undo ``begin_drain``; of no use once the listener has closed."""
        ...

    def hold(self, why: str | None) -> None:
        """Keep out of rotation: ``/.secbeat/ready`` answers 503 with this reason; None: no longer. All is served."""
        ...

    async def close_listener(self) -> None:
        """Accept no new connection; what is connected goes on."""
        ...

    async def settle(self, seconds: float) -> int:
        """Let what is connected finish, at most ``seconds``; the number of requests that are still unfinished."""
        ...

    async def end(self) -> None:
        """Cut what is left and free everything. Safe to call twice and before ``start``."""
        ...

    def stats(self) -> Totals: ...

    def take_latency(self) -> Quantiles:
        """Latency since the last call."""
        ...

    def configure(self, settings: NodeSettings) -> None:
        """Apply the keys that are live."""
        ...

    def set_blocklist(self, blocklist: Blocklist) -> None:
        """Another blocklist, or the same one changed; it counts from the next request."""
        ...
