"""State diagram, backoff, breaker arithmetic, waiting."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.operations import breaker
from orchestrator.operations.backoff import full_jitter
from orchestrator.operations.states import IllegalStep, advance
from orchestrator.operations.waiting import wait
from secbeat import ids
from secbeat.testing import FakeClock, settle
from secbeat.wire.operations import ENDED, OperationError, OperationRecord
from secbeat.wire.pools import PoolRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def operation(action="create", state="pending"):
    return OperationRecord(
        op_id=ids.new_op_id(),
        cluster_id=ids.new_cluster_id(),
        action=action,
        pool="default",
        node_id=ids.new_node_id(),
        reason="MANUAL",
        state=state,
        created_at=NOW,
        updated_at=NOW,
        deadline=NOW + timedelta(minutes=15),
        attempts=3,
        next_attempt_at=NOW,
    )


def test_a_step_begins_without_attempts_and_an_end_has_its_time():
    accepted = advance(operation(), "accepted", now=NOW)
    assert (accepted.attempts, accepted.next_attempt_at, accepted.ended_at) == (0, None, None)
    assert advance(operation(), "failed", now=NOW).ended_at == NOW


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("create", "pending", "succeeded"),
        ("create", "pending", "draining"),
        ("create", "booting", "accepted"),
        ("destroy", "pending", "succeeded"),
        ("destroy", "pending", "tearing_down"),
        ("destroy", "drained", "draining"),
        ("destroy", "tearing_down", "cancelled"),
    ],
)
def test_arrows_that_the_diagram_lacks_are_refused(action, before, after):
    with pytest.raises(IllegalStep):
        advance(operation(action, before), after, now=NOW)


@pytest.mark.parametrize("state", sorted(ENDED))
@pytest.mark.parametrize("action", ["create", "destroy"])
def test_an_end_is_an_end(action, state):
    for after in ("pending", "accepted", "booting", "draining", "drained", "tearing_down", *ENDED):
        with pytest.raises(IllegalStep):
            advance(operation(action, state), after, now=NOW)


@given(st.integers(0, 10_000), st.integers(0, 2**32))
def test_a_pause_is_never_nothing_and_never_over_the_cap(attempt, seed):
    assert 0.1 <= full_jitter(attempt, random=Random(seed)) <= 60


def test_pauses_grow_with_the_attempts():
    means = [sum(full_jitter(n, random=Random(seed)) for seed in range(200)) / 200 for n in (1, 3, 5)]
    assert means[0] < 1 < means[1] < 4 < means[2]


def test_the_breaker_opens_at_its_limit_and_a_failed_probe_keeps_it_open():
    pool = PoolRecord(name="default")
    terms = {
        "limit": 3,
        "retry_seconds": 5,
        "reset_seconds": 600,
        "error": OperationError(code="JOB_FAILED", message="no"),
    }
    for count, seconds in ((1, 5), (2, 10)):
        pool = breaker.failed(pool, now=NOW, **terms)
        assert (pool.breaker.failures, breaker.is_open(pool.breaker)) == (count, False)
        assert pool.breaker.retry_at == NOW + timedelta(seconds=seconds), "a failed boot is made good a little later"
    pool = breaker.failed(pool, now=NOW, **terms)
    assert breaker.is_open(pool.breaker)
    assert not breaker.may_probe(pool.breaker, NOW + timedelta(seconds=599))
    assert breaker.may_probe(pool.breaker, NOW + timedelta(seconds=600))
    later = NOW + timedelta(seconds=700)
    again = breaker.failed(pool, now=later, **terms)
    assert (again.breaker.open_since, again.breaker.retry_at) == (NOW, later + timedelta(seconds=600))
    assert breaker.booted(again).breaker.failures == 0


async def test_a_wait_ends_by_the_event_or_by_the_time():
    clock, event = FakeClock(), asyncio.Event()
    by_time = asyncio.ensure_future(wait(event, clock, 5))
    await clock.advance(5)
    assert await by_time is False
    by_event = asyncio.ensure_future(wait(event, clock, 5))
    await settle()
    event.set()
    assert await by_event is True
    assert not event.is_set()


async def test_a_cancelled_wait_is_cancelled():
    task = asyncio.ensure_future(wait(asyncio.Event(), FakeClock(), 5))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
