"""The breaker of a pool: boots in a row that never joined stop further ones. Pure; kept in the pool's record."""

from __future__ import annotations

from datetime import datetime, timedelta

from secbeat.wire.operations import OperationError
from secbeat.wire.pools import Breaker, PoolRecord


def failed(
    pool: PoolRecord,
    *,
    now: datetime,
    limit: int,
    retry_seconds: float,
    reset_seconds: float,
    error: OperationError,
    op_id: str | None = None,
) -> PoolRecord:
    """One more boot failed: the next one waits a little, twice as long each time.

    From ``limit`` on the breaker is open, and each failed probe keeps it open anew.
    """
    failures = pool.breaker.failures + 1
    opened = failures >= limit
    wait = reset_seconds if opened else min(retry_seconds * 2.0 ** (failures - 1), reset_seconds)
    task = f" (task '{error.task}')" if error.task and error.task not in error.message else ""
    breaker = Breaker(
        failures=failures,
        open_since=(pool.breaker.open_since or now) if opened else None,
        retry_at=now + timedelta(seconds=wait),
        last_error=f"{error.message[:400]}{task}"[:500],
        last_code=error.code,
        last_op_id=op_id,
    )
    return pool.model_copy(update={"breaker": breaker})


def booted(pool: PoolRecord) -> PoolRecord:
    """A boot joined: the count starts again, an open breaker closes."""
    return pool if pool.breaker == Breaker() else pool.model_copy(update={"breaker": Breaker()})


def probing(pool: PoolRecord, *, now: datetime, reset_seconds: float) -> PoolRecord:
    """The one boot that an open breaker lets through has started; the next one waits for its own time."""
    retry_at = now + timedelta(seconds=reset_seconds)
    return pool.model_copy(update={"breaker": pool.breaker.model_copy(update={"retry_at": retry_at})})


def is_open(breaker: Breaker) -> bool:
    """Whether creations are stopped (but for a probe)."""
    return breaker.open_since is not None


def may_probe(breaker: Breaker, now: datetime) -> bool:
    """Whether an open breaker lets one creation try."""
    return is_open(breaker) and breaker.retry_at is not None and now >= breaker.retry_at
