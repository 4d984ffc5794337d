"""What the proxy counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from node.dataplane.latency import LatencyHistogram


@dataclass(slots=True)
class Counters:
    """Plain numbers, changed on the event loop only."""

    requests: int = 0
    proxied: int = 0
    server_errors: int = 0
    http_errors: int = 0
    blocked: int = 0
    over_limit: int = 0
    upgraded: int = 0
    in_flight: int = 0
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)

    def answered(self, status: int) -> None:
        """Count a response by its status."""
        self.http_errors += status >= 400
        self.server_errors += status >= 500
