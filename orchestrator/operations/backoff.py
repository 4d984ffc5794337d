"""How long to wait before an attempt is repeated."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

_EXPONENT_LIMIT = 16


def full_jitter(attempt: int, *, random: Random, base: float = 1.0, cap: float = 60.0) -> float:
    """Seconds before attempt ``attempt`` + 1: uniform up to ``base`` * 2^attempt, at most ``cap``.

    Full jitter: many operations that failed together do not come back together. A tenth of the ceiling is the floor,
    so that no draw repeats at once.
    """
    ceiling = min(cap, base * 2.0 ** min(max(attempt - 1, 0), _EXPONENT_LIMIT))
    return random.uniform(ceiling / 10, ceiling)


def retry_after(value: str | None, *, now: datetime, cap: float = 600.0) -> float | None:
    """Seconds that ``Retry-After`` (a number or a date) asks for, at most ``cap``; None: absent or nonsense."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), cap)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), cap)
