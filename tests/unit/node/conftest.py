from __future__ import annotations

import asyncio

import pytest

from node.dataplane import Quantiles, Totals
from secbeat.testing import FakeClock

# Else pytest-asyncio makes a loop to put back after the first async test, and never closes it.
asyncio.set_event_loop(None)


class FakePlane:
    """A DataPlane in virtual time: ``busy`` is how long what is connected needs to finish."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.calls: list[tuple[str, float]] = []
        self.totals = Totals()
        self.latency = Quantiles()
        self.blocklists: list = []
        self.busy = 0.0
        self.in_flight = 0
        self.draining = False
        self.port = 8443

    def _call(self, name: str) -> None:
        self.calls.append((name, self._clock.monotonic()))

    async def start(self) -> None:
        self._call("start")

    def begin_drain(self) -> None:
        self.draining = True
        self._call("begin_drain")

    def cancel_drain(self) -> None:
        self.draining = False
        self._call("cancel_drain")

    def hold(self, why: str | None) -> None:
        self._call(f"hold {why}")

    async def close_listener(self) -> None:
        self._call("close_listener")

    async def settle(self, seconds: float) -> int:
        self._call(f"settle {seconds:g}")
        await self._clock.sleep(min(self.busy, seconds))
        if self.busy <= seconds:
            self.in_flight = 0
        return self.in_flight

    async def end(self) -> None:
        self._call("end")

    def stats(self) -> Totals:
        return self.totals

    def take_latency(self) -> Quantiles:
        return self.latency

    def configure(self, settings) -> None:
        self._call("configure")

    def set_blocklist(self, blocklist) -> None:
        self.blocklists.append(blocklist)
        self.totals = Totals(blocklist_size=blocklist.size, blocklist_version=blocklist.version)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def plane(clock) -> FakePlane:
    return FakePlane(clock)


@pytest.fixture
async def background():
    """Start a coroutine as a task that ends with the test."""
    tasks = []

    def start(coroutine) -> asyncio.Task:
        tasks.append(asyncio.ensure_future(coroutine))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
