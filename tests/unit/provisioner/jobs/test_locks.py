from __future__ import annotations

import asyncio

import pytest

from provisioner.jobs.locks import Gate, KeyedLocks
from secbeat.testing import settle


async def test_one_holder_per_key_in_order_of_arrival_and_nothing_is_kept():
    locks, order = KeyedLocks(), []

    async def hold(key, name):
        async with locks.hold(key):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            order.append(f"{name} out")

    await asyncio.gather(hold("a", "1"), hold("a", "2"), hold("b", "3"))
    assert order.index("1 out") < order.index("2 in")
    assert order.index("3 in") < order.index("1 out")
    assert len(locks) == 0


async def test_a_holder_that_is_cancelled_while_it_waits_leaves_no_trace():
    locks = KeyedLocks()
    async with locks.hold("a"):
        waiting = asyncio.create_task(locks.hold("a").__aenter__())
        await settle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with locks.hold("a"):
        pass
    assert len(locks) == 0


async def test_a_gate_lets_in_as_many_as_its_size_in_order():
    gate, inside = Gate(2), []

    async def enter(name):
        await gate.acquire()
        inside.append(name)

    tasks = [asyncio.create_task(enter(name)) for name in range(4)]
    await settle()
    assert inside == [0, 1]
    gate.release()
    await settle()
    assert inside == [0, 1, 2]
    gate.resize(5)
    await settle()
    assert inside == [0, 1, 2, 3]
    await asyncio.gather(*tasks)


async def test_a_gate_made_smaller_lets_nobody_in_until_enough_have_left():
    gate = Gate(3)
    for _ in range(3):
        await gate.acquire()
    gate.resize(1)
    task = asyncio.create_task(gate.acquire())
    for _ in range(2):
        gate.release()
        await settle()
        assert not task.done()
    gate.release()
    await settle()
    assert task.done()


async def test_who_stops_waiting_does_not_take_a_place():
    gate = Gate(1)
    await gate.acquire()
    leaving, staying = asyncio.create_task(gate.acquire()), asyncio.create_task(gate.acquire())
    await settle()
    gate.release()
    leaving.cancel()  # at the moment at which its place has come
    await asyncio.gather(leaving, return_exceptions=True)
    async with asyncio.timeout(1):
        await staying
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await gate.acquire()
