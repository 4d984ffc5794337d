from __future__ import annotations

import json
import stat

import pytest

from node.drain import Drain, interrupted
from secbeat.errors import RefusedError


@pytest.fixture
def changes():
    return []


@pytest.fixture
def drain(plane, clock, tmp_path, changes):
    made = Drain(
        plane,
        clock,
        boot_id="boot",
        record_file=tmp_path / "drain.json",
        longest=60.0,
        propagation=10.0,
        on_change=lambda: changes.append(made.phase),
    )
    return made


async def test_the_listener_closes_after_the_propagation_and_not_before(drain, plane, clock, background, changes):
    running = background(drain.run())
    await clock.advance(100)
    assert plane.calls == []
    assert drain.begin(reason="x", seconds=60) == 60
    assert changes == ["propagating"]  # heard at once, before any waiting
    assert plane.draining
    await clock.advance(9.9)
    assert [name for name, _ in plane.calls] == ["begin_drain"]
    await clock.advance(0.2)
    assert [name for name, _ in plane.calls] == ["begin_drain", "close_listener", "settle 50"]
    assert (await running).seconds == pytest.approx(10)


async def test_what_is_in_flight_has_until_the_deadline_and_then_counts_as_aborted(drain, plane, clock, background):
    plane.busy, plane.in_flight = 500.0, 3
    running = background(drain.run())
    drain.begin(reason="x", seconds=30)
    await clock.advance(29.9)
    assert not running.done()
    await clock.advance(0.2)
    outcome = await running
    assert (outcome.aborted, outcome.seconds) == (3, pytest.approx(30))


async def test_it_ends_as_soon_as_nothing_is_left(drain, plane, clock, background):
    plane.busy, plane.in_flight = 3.0, 2
    running = background(drain.run())
    drain.begin(reason="x")
    await clock.advance(13.1)
    assert (await running).aborted == 0


@pytest.mark.parametrize(("asked", "granted"), [(5, 5.0), (60, 60.0), (3600, 60.0), (0, 0.0), (None, 60.0)])
async def test_the_grace_period_is_what_was_asked_for_but_never_longer_than_configured(drain, asked, granted):
    assert drain.begin(reason="x", seconds=asked) == granted
    assert drain.remaining == granted


async def test_a_repetition_changes_neither_deadline_nor_answer(drain, clock, background):
    background(drain.run())
    drain.begin(reason="first", seconds=40)
    await clock.advance(7)
    assert drain.begin(reason="second", seconds=60) == 40
    assert drain.begin(reason="third", seconds=1) == 40
    assert drain.remaining == pytest.approx(33)
    assert drain.reason == "first"


async def test_a_short_grace_period_leaves_half_of_it_for_what_is_in_flight(drain, plane, clock, background):
    background(drain.run())
    drain.begin(reason="x", seconds=4)
    await clock.advance(2.1)
    assert plane.calls[-1] == ("settle 2", pytest.approx(2.0))


async def test_resume_brings_the_node_back_and_a_later_drain_starts_anew(
    drain, plane, clock, background, changes, tmp_path
):
    running = background(drain.run())
    drain.begin(reason="x", seconds=60)
    await clock.advance(6)
    drain.resume("needed")
    assert (drain.phase, plane.draining, changes) == ("serving", False, ["propagating", "serving"])
    assert not (tmp_path / "drain.json").exists()
    await clock.advance(1000)
    assert not running.done()
    assert [name for name, _ in plane.calls] == ["begin_drain", "cancel_drain"]
    drain.begin(reason="again", seconds=60)
    await clock.advance(9.9)
    assert drain.phase == "propagating"  # the whole propagation again
    await clock.advance(0.2)
    assert (await running).aborted == 0


async def test_a_drain_that_follows_a_resume_at_once_waits_for_its_own_propagation(drain, plane, clock, background):
    background(drain.run())
    drain.begin(reason="x", seconds=60)
    await clock.advance(9)
    drain.resume("")
    drain.begin(reason="y", seconds=60)
    await clock.advance(5)
    assert drain.phase == "propagating"
    await clock.advance(5.1)
    assert ("close_listener", pytest.approx(19)) in plane.calls


async def test_after_the_listener_has_closed_resume_is_refused(drain, plane, clock, background):
    plane.busy = 100
    background(drain.run())
    drain.begin(reason="x", seconds=60)
    await clock.advance(10.5)
    with pytest.raises(RefusedError) as refused:
        drain.resume("")
    assert (refused.value.code, refused.value.status) == ("DRAIN_TOO_LATE", 409)
    assert drain.draining


async def test_resume_without_a_drain_does_nothing(drain, plane, changes):
    drain.resume("")
    assert (plane.calls, changes) == ([], [])


@pytest.mark.parametrize("at", [3.0, 15.0])
async def test_hurry_ends_the_propagation_and_the_wait(at, drain, plane, clock, background):
    plane.busy, plane.in_flight = 500.0, 1
    running = background(drain.run())
    drain.begin(reason="x", seconds=60)
    await clock.advance(at)
    drain.hurry()
    await clock.advance(0.1)
    outcome = await running
    assert (outcome.aborted, outcome.seconds) == (1, pytest.approx(at))


async def test_the_order_is_on_disk_while_it_goes_on_and_gone_afterwards(drain, plane, clock, background, tmp_path):
    file = tmp_path / "drain.json"
    plane.busy = 30
    running = background(drain.run())
    drain.begin(reason="LOW_FLEET_CPU_LOAD", seconds=60)
    record = json.loads(file.read_text())
    assert record["reason"] == "LOW_FLEET_CPU_LOAD"
    assert record["boot_id"] == "boot"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await clock.advance(20)
    assert interrupted(file, clock) == (pytest.approx(40), "LOW_FLEET_CPU_LOAD")
    await clock.advance(25)
    await running
    assert not file.exists()


async def test_only_an_ordered_drain_that_is_not_over_goes_on_after_a_restart(drain, clock, tmp_path):
    file = tmp_path / "drain.json"
    assert interrupted(file, clock) is None
    drain.begin(reason="SIGTERM", ordered=False)
    assert interrupted(file, clock) is None
    drain.resume("")
    drain.begin(reason="scale down", seconds=60)
    await clock.advance(20)
    assert interrupted(file, clock) == (pytest.approx(40), "scale down")
    await clock.advance(40)
    assert interrupted(file, clock) is None
    file.write_text("{half a")
    assert interrupted(file, clock) is None


async def test_a_disk_that_cannot_be_written_does_not_keep_the_node(plane, clock, tmp_path, background):
    (tmp_path / "file").write_text("in the way")
    drain = Drain(plane, clock, boot_id="b", record_file=tmp_path / "file" / "drain.json", longest=60, propagation=1)
    running = background(drain.run())
    drain.begin(reason="x")
    await clock.advance(2)
    assert (await running).aborted == 0


async def test_new_limits_count_for_the_next_drain_only(drain):
    drain.begin(reason="x")
    drain.configure(longest=5, propagation=1)
    assert drain.begin(reason="x") == 60
    drain.resume("")
    assert drain.begin(reason="x") == 5


async def test_a_shorter_propagation_takes_effect_while_it_lasts(drain, plane, clock, background):
    background(drain.run())
    drain.begin(reason="x", seconds=60)
    await clock.advance(5)
    drain.configure(longest=60, propagation=2)
    await clock.advance(0.01)
    assert ("close_listener", 5.0) in plane.calls
