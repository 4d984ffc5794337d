from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from provisioner import retry
from secbeat.wire.jobs import JobError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAR = NOW + timedelta(hours=1)


def delay(code, attempt=1, *, deadline=FAR, jitter=1.0):
    return retry.delay(JobError(code=code, message="x"), attempt, now=NOW, deadline=deadline, jitter=jitter)


@pytest.mark.parametrize("code", ["PLAYBOOK_FAILED", "RESULT_INVALID", "MACHINE_DIR_UNWRITABLE", "JOB_TIMEOUT"])
def test_what_the_playbook_itself_says_is_reported_at_once(code):
    assert delay(code) is None


def test_what_failed_around_the_playbook_is_repeated_with_growing_pauses():
    waits = [delay("JOIN_SECRET_UNAVAILABLE", attempt) for attempt in range(1, retry.MAX_ATTEMPTS)]
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert delay("JOIN_SECRET_UNAVAILABLE", retry.MAX_ATTEMPTS) is None


def test_jitter_spreads_between_half_and_the_whole():
    assert delay("PROVIDER_LIMIT", jitter=0.0) == 7.5
    assert delay("PROVIDER_LIMIT", jitter=1.0) == 15.0


def test_an_attempt_that_could_only_start_after_the_deadline_is_not_made():
    assert delay("PROVIDER_LIMIT", deadline=NOW + timedelta(seconds=15)) is None
    assert delay("PROVIDER_LIMIT", deadline=NOW + timedelta(seconds=16)) == 15.0
