"""Latencies from HAProxy's own measurements, which it sends as one datagram per request or, under load, per sample.

Each value is exact: microseconds from the request's headers to the end of the response. Up to 200 requests a second
all of them come; up to 2,000 a tenth; above that one in 200, drawn at random, so the quantiles are estimates then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from node.dataplane import Quantiles
from node.dataplane.haproxy.runtime import Place
from node.dataplane.latency import LatencyHistogram

LOG = "log.sock"


class LatencyReceiver(asyncio.DatagramProtocol):
    """Listens on ``log.sock`` in HAProxy's directory; HAProxy never waits for it."""

    def __init__(self) -> None:
        self._histogram = LatencyHistogram()
        self._transport: asyncio.BaseTransport | None = None

    async def open(self, place: Place) -> None:
        """Begin to listen; what an earlier process left is replaced."""
        with contextlib.suppress(FileNotFoundError):
            (place.path / LOG).unlink()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=place.short(LOG), family=socket.AF_UNIX
        )
        os.chmod(place.short(LOG), 0o600)  # noqa: PTH101 - of a socket, at once

    def close(self) -> None:
        """Safe to call twice."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def take(self) -> Quantiles:
        """The quantiles since the last call."""
        return self._histogram.take()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - the base class's signature
        microseconds, _, status = data.strip().partition(b" ")
        # A tunnel's length is no latency; a request that never came whole has none.
        if microseconds.isdigit() and status != b"101":
            self._histogram.add(int(microseconds) / 1e6)
