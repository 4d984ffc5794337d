"""HAProxy's statistics as the counters of the Protocol.

A worker counts from zero: what earlier ones have counted is added, so that a reload or a crash takes nothing back. The
configuration sends each kind of request to a backend of its own, so every figure is a counter of HAProxy's and exact;
a response counts when it has ended.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields, replace

from node.dataplane import Totals

SHOW = "show stat -1 3 -1"
_GAUGES = frozenset({"connections", "in_flight", "blocklist_size", "blocklist_version"})
_COUNTERS = tuple(field.name for field in fields(Totals) if field.name not in _GAUGES)
# Backends whose requests are traffic; the health checks' is not among them.
_TRAFFIC = ("origin", "sockets", "excess", "blocked", "refused")
_FORWARDED = ("origin", "sockets")


@dataclass(frozen=True, slots=True)
class Reading:
    """One worker's counters; ``sockets`` are the tunnels among ``in_flight``."""

    totals: Totals
    sockets: int


def parse(text: str) -> Reading:
    """Read the answer to `SHOW`.

    Raises:
        ValueError: it is none.
    """
    lines = text.strip().removeprefix("# ").splitlines()
    rows = {row["pxname"]: row for row in csv.DictReader(lines) if row.get("svname") in {"FRONTEND", "BACKEND"}}
    if "main" not in rows:
        raise ValueError("no statistics of the frontend 'main'")

    def add(names: tuple[str, ...], *columns: str) -> int:
        return sum(int(rows[name].get(column) or 0) for name in names if name in rows for column in columns)

    sockets = add(("sockets",), "scur")
    return Reading(
        Totals(
            requests=add(_TRAFFIC, "stot"),
            proxied=add(_FORWARDED, "stot"),
            server_errors=add(_TRAFFIC, "hrsp_5xx"),
            http_errors=add(_TRAFFIC, "hrsp_4xx", "hrsp_5xx"),
            blocked=add(("blocked",), "stot"),
            over_limit=add(("excess",), "stot"),
            handshakes=add(("main",), "ssl_sess"),
            upgraded=max(add(("sockets",), "hrsp_1xx"), sockets),
            connections=add(("main",), "scur"),
            in_flight=add(_TRAFFIC, "scur"),
        ),
        sockets,
    )


class Counting:
    """The sum over all workers that there have been."""

    def __init__(self) -> None:
        self._now: dict[int, Reading] = {}
        self._ended = Totals()
        self.total = Totals()

    @property
    def sockets(self) -> int:
        """Upgraded connections that are open now."""
        return sum(reading.sockets for reading in self._now.values())

    def read(self, readings: dict[int, Reading]) -> None:
        """Take the present readings by worker; a worker that is no longer among them has ended."""
        for worker, reading in self._now.items():
            if worker not in readings:
                self._ended = _plus(self._ended, reading.totals)
        self._now = {
            worker: _grown(self._now[worker], reading) if worker in self._now else reading
            for worker, reading in readings.items()
        }
        total = self._ended
        for reading in self._now.values():
            total = _plus(total, reading.totals)
        gauges = {
            name: sum(getattr(reading.totals, name) for reading in self._now.values())
            for name in ("connections", "in_flight")
        }
        self.total = replace(total, **gauges)


def _plus(one: Totals, two: Totals) -> Totals:
    return replace(one, **{name: getattr(one, name) + getattr(two, name) for name in _COUNTERS})


def _grown(before: Reading, now: Reading) -> Reading:
    # What is derived from a gauge may shrink; a counter never does.
    upgraded = max(before.totals.upgraded, now.totals.upgraded)
    return Reading(replace(now.totals, upgraded=upgraded), now.sockets)
