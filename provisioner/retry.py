"""Which failed attempts are worth repeating here, and when.

A playbook that failed is reported at once: whoever asked decides whether to try again with a new operation. Repeated
here is only what failed around the playbook: the join secret, a connection, a killed process.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from secbeat.wire.jobs import JobError

MAX_ATTEMPTS = 5
_FIRST_DELAY = {
    "JOIN_SECRET_UNAVAILABLE": 1.0,
    "STATE_UNAVAILABLE": 1.0,
    "JOB_CRASHED": 1.0,
    "HOST_UNREACHABLE": 5.0,
    "PROVIDER_LIMIT": 15.0,
}
_LONGEST_DELAY = 120.0


def delay(error: JobError, attempt: int, *, now: datetime, deadline: datetime, jitter: float) -> float | None:
    """Seconds until the next attempt, or None to report the failure.

    Args:
        error: how the attempt ended.
        attempt: its number, from 1.
        now: the wall clock.
        deadline: the operation's; an attempt that could only start after it is not made.
        jitter: uniform in 0 to 1; the delay lies between half and the whole of its nominal value.
    """
    first = _FIRST_DELAY.get(error.code)
    if first is None or attempt >= MAX_ATTEMPTS:
        return None
    seconds = min(_LONGEST_DELAY, first * 2.0 ** (attempt - 1)) * (0.5 + jitter / 2)
    return None if now + timedelta(seconds=seconds) >= deadline else float(seconds)
