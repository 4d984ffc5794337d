"""A latency histogram with logarithmic buckets: constant memory, one addition per request."""

from __future__ import annotations

import math

from node.dataplane import Quantiles

_GROWTH = math.log(1.05)
_SMALLEST_MS = 0.05
_BUCKETS = 400  # 0.05 ms times 1.05^400 is over four hours


class LatencyHistogram:
    """Latencies since the last ``take``."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._total = 0

    def add(self, seconds: float) -> None:
        """Count one request."""
        milliseconds = seconds * 1000.0
        index = 0 if milliseconds <= _SMALLEST_MS else math.ceil(math.log(milliseconds / _SMALLEST_MS) / _GROWTH)
        self._counts[min(index, _BUCKETS - 1)] += 1
        self._total += 1

    def take(self) -> Quantiles:
        """The quantiles; the histogram starts anew."""
        counts, total = self._counts, self._total
        self._counts, self._total = [0] * _BUCKETS, 0
        if not total:
            return Quantiles()
        return Quantiles(*(_quantile(counts, total, share) for share in (0.50, 0.95, 0.99)))


def _quantile(counts: list[int], total: int, share: float) -> float:
    rank, seen, index = math.ceil(total * share), counts[0], 0
    while seen < rank:
        index += 1
        seen += counts[index]
    return round(_SMALLEST_MS * math.exp(_GROWTH * index), 3)
