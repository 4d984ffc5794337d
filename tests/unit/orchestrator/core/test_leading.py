"""Leadership: take over, let go, step down, and stop on a defect."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.leading import Leading
from orchestrator.testing import world
from secbeat.service import Stop
from secbeat.store import Unavailable
from secbeat.testing import settle


async def led(w):
    """The world's core under a Leading instead of led by hand."""
    await w.core.follow()
    leading, stop = Leading(w.core, w.lease, w.clock), Stop()
    task = asyncio.ensure_future(leading.run(stop))
    await settle()
    return leading, stop, task


async def test_it_leads_while_the_lease_is_held_and_takes_up_the_work_again():
    w = world()
    w.receiver.manner = "busy"
    async with w:
        _, stop, task = await led(w)
        assert w.core.leader
        w.lease.lose()
        await w.clock.advance(1)
        assert not w.core.leader
        sent = len(w.receiver.calls)
        w.receiver.manner = "tracked"
        await w.clock.advance(60)
        assert len(w.receiver.calls) == sent
        w.lease.acquire()
        await w.until(lambda: len(w.active()) == 1, within=60)
        assert w.receiver.calls[-1].body["operation"]["epoch"] == w.lease.epoch == 2
        stop.request("done")
        await w.clock.advance(1)
        await task
        assert not w.core.leader


async def test_a_higher_epoch_at_a_receiver_makes_it_step_down_at_most_every_30_seconds():
    async with world(pool={"min": 0}) as w:
        leading, stop, task = await led(w)
        leading.superseded(9)
        await w.clock.advance(1)
        assert not w.lease.held
        w.lease.acquire()
        await w.clock.advance(1)
        leading.superseded(9)
        await w.clock.advance(1)
        assert w.lease.held
        stop.request("done")
        await w.clock.advance(1)
        await task


async def test_a_store_that_cannot_be_loaded_is_tried_again():
    async with world(pool={"min": 0}) as w:
        await w.core.follow()
        w.core.context.records.bucket.next_error = Unavailable("no quorum")
        stop = Stop()
        task = asyncio.ensure_future(Leading(w.core, w.lease, w.clock).run(stop))
        await settle()
        assert not w.core.leader
        await w.clock.advance(2)
        assert w.core.leader
        stop.request("done")
        await w.clock.advance(1)
        await task


async def test_a_loop_that_ends_by_a_defect_ends_the_service():
    async with world(pool={"min": 0}) as w:
        _, _, task = await led(w)

        def broken(_name):
            raise ZeroDivisionError

        w.core.the_pools.snapshot = broken
        w.core.loop.wake("default")
        await w.clock.advance(30)
        with pytest.raises(ZeroDivisionError):
            await task
