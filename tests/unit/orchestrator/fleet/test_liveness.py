from __future__ import annotations

import uuid

import pytest

ONE = str(uuid.UUID(int=1))


async def beats(fleet, seconds: float, times: int) -> None:
    for _ in range(times):
        await fleet.clock.advance(seconds)
        fleet.beat()


async def test_a_node_is_silent_after_three_missed_intervals_and_not_before(fleet):
    fleet.add()
    fleet.beat()
    await fleet.clock.advance(15)
    assert not fleet.silent()
    await fleet.clock.advance(0.01)
    assert fleet.silent()
    fleet.beat()
    assert not fleet.silent()


async def test_after_a_restart_nobody_is_silent_before_three_intervals_have_passed(fleet):
    node = fleet.add()
    assert not node.heard
    await fleet.clock.advance(15)
    assert not fleet.silent()
    await fleet.clock.advance(0.01)
    assert fleet.silent()


async def test_a_slower_interval_is_learned_per_node(fleet):
    fleet.add(1)
    fleet.add(2)
    fleet.beat(1)
    await beats(fleet, 20, 30)
    fleet.beat(2)
    await fleet.clock.advance(55)
    assert (fleet.silent(1), fleet.silent(2)) == (False, True)
    await fleet.clock.advance(10)
    assert fleet.silent(1)


async def test_one_outage_teaches_no_interval(fleet):
    fleet.add()
    fleet.beat()
    await beats(fleet, 5, 5)
    await beats(fleet, 3600, 1)
    await beats(fleet, 5, 1)
    await fleet.clock.advance(18)
    assert fleet.silent()


async def test_frames_that_arrive_in_a_burst_teach_no_interval(fleet):
    fleet.add()
    fleet.beat()
    await beats(fleet, 5, 3)
    await beats(fleet, 0.001, 20)
    await fleet.clock.advance(14.9)
    assert not fleet.silent()


async def test_no_node_teaches_an_interval_of_hours(fleet):
    fleet.add()
    fleet.beat()
    await beats(fleet, 3600, 200)
    await fleet.clock.advance(360)
    assert not fleet.silent()
    await fleet.clock.advance(1)
    assert fleet.silent()


async def test_however_short_the_interval_nobody_is_silent_within_three_seconds(fleet):
    fleet.registry.default_interval = 0.2
    fleet.add()
    fleet.beat()
    await beats(fleet, 0.2, 10)
    await fleet.clock.advance(3)
    assert not fleet.silent()
    await fleet.clock.advance(0.01)
    assert fleet.silent()


async def test_the_wall_clock_may_jump_without_anybody_falling_silent(fleet):
    fleet.add()
    fleet.beat()
    fleet.clock._skew += 86400
    await fleet.clock.advance(10)
    assert not fleet.silent()
    fleet.clock._skew -= 2 * 86400
    assert not fleet.silent()


async def test_a_touch_is_a_proof_of_life_without_load(fleet):
    node = fleet.add()
    await fleet.clock.advance(14)
    fleet.registry.touch(ONE)
    fleet.registry.touch(str(uuid.UUID(int=404)))
    await fleet.clock.advance(14)
    assert not fleet.silent()
    assert (node.cpu, len(fleet.registry)) == (None, 1)


async def test_heard_within_counts_from_the_receipt(fleet):
    node = fleet.add()
    now = fleet.clock.monotonic
    assert not fleet.registry.heard_within(node, 1e9, now())
    assert fleet.registry.heard_at(node) is None
    fleet.beat()
    at = fleet.clock.now()
    await fleet.clock.advance(10)
    assert fleet.registry.heard_within(node, 10, now())
    assert not fleet.registry.heard_within(node, 9.9, now())
    assert fleet.registry.heard_at(node) == at


@pytest.mark.parametrize("interval", [30, 60])
async def test_a_legacy_node_at_its_own_pace_is_never_silent(fleet, interval, legacy):
    fleet.add(legacy=True)
    for _ in range(10):
        await fleet.clock.advance(interval)
        assert not fleet.silent()
        fleet.registry.on_legacy(legacy(), unit="percent")
    await fleet.clock.advance(3 * interval - 1 if interval == 60 else 2 * interval)
    assert not fleet.silent()
    await fleet.clock.advance(2 * interval)
    assert fleet.silent()
