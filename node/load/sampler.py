"""Load over an interval: every number is a difference of two readings, none an average since the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from node.dataplane import DataPlane, Quantiles
from node.load.cpu import Meter, use_between
from node.load.memory import memory_in_use
from secbeat.clock import Clock
from secbeat.wire.heartbeat import LatencyFrame, MetricsFrame

# A heartbeat that a change of status forces may follow the last one by milliseconds: too short for a CPU figure.
_SHORTEST = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """Fractions 0 to 1, rates per second, latency in milliseconds; ``seconds`` is the interval that they cover."""

    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    connections: int = 0
    in_flight: int = 0
    rps: float = 0.0
    errors_per_second: float = 0.0
    latency: Quantiles = field(default_factory=Quantiles)

    def frame(self) -> MetricsFrame:
        """As a heartbeat carries it."""
        return MetricsFrame(
            cpu=round(self.cpu, 4),
            memory=round(self.memory, 4),
            connections=self.connections,
            in_flight=self.in_flight,
            rps=round(self.rps, 3),
            errors_per_second=round(self.errors_per_second, 3),
            latency_ms=LatencyFrame(p50=self.latency.p50, p95=self.latency.p95, p99=self.latency.p99),
        )


class Sampler:
    """Takes samples of a data plane and a meter."""

    def __init__(
        self, plane: DataPlane, meter: Meter, clock: Clock, *, memory: Callable[[], float] = memory_in_use
    ) -> None:
        self._plane, self._meter, self._clock, self._memory = plane, meter, clock, memory
        self.latest = Sample()
        self.restart()

    def restart(self) -> None:
        """Begin the interval now, so that the work of the start does not count as load."""
        self._at = self._clock.monotonic()
        self._cpu = self._meter.read(self._at)
        self._totals = self._plane.stats()

    def take(self) -> Sample:
        """The load since the last take; within a fifth of a second of it, the last one with the gauges of now."""
        now, totals = self._clock.monotonic(), self._plane.stats()
        seconds = now - self._at
        if seconds < _SHORTEST:
            last = self.latest
            self.latest = Sample(
                last.seconds, last.cpu, self._memory(), totals.connections, totals.in_flight,
                last.rps, last.errors_per_second, last.latency,
            )  # fmt: skip
            return self.latest
        cpu, before = self._meter.read(now), self._totals
        use = use_between(self._cpu, cpu)
        self.latest = Sample(
            seconds=seconds,
            cpu=self.latest.cpu if use is None else use,
            memory=self._memory(),
            connections=totals.connections,
            in_flight=totals.in_flight,
            rps=(totals.requests - before.requests) / seconds,
            errors_per_second=(totals.server_errors - before.server_errors) / seconds,
            latency=self._plane.take_latency(),
        )
        self._at, self._cpu, self._totals = now, cpu, totals
        return self.latest
