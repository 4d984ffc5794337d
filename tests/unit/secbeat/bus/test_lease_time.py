"""When a holder stops believing in its lease, in virtual time; the rest is tested on a real server."""

from __future__ import annotations

import asyncio
import json

import pytest

from secbeat.bus import LeaseKeeper, LeaseTiming
from secbeat.service import Stop
from secbeat.store import Conflict, Unavailable
from secbeat.testing import FakeClock, settle


class SlowStore:
    """A store whose answers take ``delay`` seconds, or fail with ``error``."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.delay, self.error = clock, 0.0, None
        self.renewals = 0

    async def _answer(self):
        await self.clock.sleep(self.delay)
        if self.error is not None:
            raise self.error

    async def last(self, key):
        await self._answer()
        return b"", 0

    async def batch(self, *writes):
        await self._answer()
        return [1, 2]

    async def write(self, key, value, headers):
        self.renewals += 1
        await self._answer()
        return 10 + self.renewals

    async def remove(self, key, headers):
        await self._answer()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return SlowStore(clock)


@pytest.fixture
async def lease(clock, store):
    keeper = LeaseKeeper(store, "one", clock=clock, timing=LeaseTiming())
    stop = Stop()
    task = asyncio.create_task(keeper.run(stop))
    await settle()
    assert keeper.held
    yield keeper
    store.delay, store.error = 0.0, None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_belief_lasts_two_thirds_of_the_life_from_before_the_renewal_was_sent(clock, store, lease):
    store.delay = 6.0  # the renewal goes out at 3 s, its confirmation comes at 9 s
    await clock.advance(9.0)
    assert store.renewals == 1
    store.error = Unavailable("gone")
    await clock.advance(3.9)
    assert lease.held, "13 s are not over: 3 s, and ten of belief"
    await clock.advance(0.1)
    assert not lease.held


async def test_a_healthy_lease_is_renewed_every_three_seconds_and_never_in_doubt(clock, store, lease):
    for _ in range(600):
        await clock.advance(0.1)
        assert lease.held
    assert 19 <= store.renewals <= 20


async def test_failed_renewals_are_tried_again_at_once_and_one_success_in_time_keeps_the_lease(clock, store, lease):
    store.error = Unavailable("fail-over")
    await clock.advance(9.0)
    assert lease.held
    assert store.renewals >= 5
    store.error = None
    await clock.advance(2.0)
    assert lease.held


async def test_a_refused_renewal_ends_the_belief_at_once(clock, store, lease):
    store.error = Conflict("another")
    await clock.advance(3.0)
    assert not lease.held


async def test_waiting_for_the_loss_ends_with_the_belief(clock, store, lease):
    losing = asyncio.ensure_future(lease.wait_lost())
    await settle()
    store.error = Unavailable("gone")
    await clock.advance(9.9)
    assert not losing.done()
    await clock.advance(0.2)
    await losing


async def test_a_standby_leads_within_two_seconds_after_the_lease_was_given_up(clock):
    class Taken(SlowStore):
        free = False

        async def last(self, key):
            return (b"", 0) if self.free else (b'{"holder": "other", "instance": "x", "epoch": 4}', 7)

    taken = Taken(clock)
    keeper, stop = LeaseKeeper(taken, "two", clock=clock, timing=LeaseTiming()), Stop()
    task = asyncio.create_task(keeper.run(stop))
    await clock.advance(30)
    assert not keeper.held
    taken.free = True
    await clock.advance(2.0)
    assert keeper.held
    stop.request("test")
    await task
    assert not keeper.held


def test_the_names_in_the_lease_are_data():
    from secbeat.bus.lease import _decode, _epoch_in

    assert _epoch_in(json.dumps({"epoch": 7}).encode()) == 7
    for broken in (b"", b"{", b"[]", b"7", b'{"epoch": "x"}', b"\xff"):
        assert _epoch_in(broken) == 0
        assert isinstance(_decode(broken), dict)
