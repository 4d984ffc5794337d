"""What this service never does, whoever asks (promise 8): too many machines, too fast, or again and again in vain.

Machines are counted by records and by accepted creations that have not ended, never by heartbeats. Counts are exact
for one provisioner; those that share a store see each other's machines with the delay of `Limits.refresh`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from secbeat.clock import Clock
from secbeat.settings import BlueprintSettings, ProvisionerSettings
from secbeat.wire.jobs import FINISHED, JobRecord, MachineRecord


@dataclass(frozen=True)
class Refusal:
    """Why a request is not taken, and when to ask again (seconds)."""

    code: str
    status: int
    why: str
    retry_after: int


@dataclass
class _Breaker:
    failures: int = 0
    last_failure: datetime | None = None


@dataclass
class _Bucket:
    """Token bucket: a minute's worth at most, refilled steadily."""

    level: float
    at: float


# How a create can end without saying anything about whether creating works.
_NO_VERDICT = frozenset({"JOB_CANCELLED", "DEADLINE_PASSED", "BLUEPRINT_UNKNOWN", "OPERATION_ENDED"})


class Limits:
    """Admission of jobs. Synchronous: what is admitted is counted before anything else can run."""

    def __init__(self, settings: ProvisionerSettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._machines: dict[str, str] = {}
        self._creating: dict[str, tuple[str, str]] = {}
        self._open: set[str] = set()
        self._breakers: dict[str, _Breaker] = {}
        self._tokens = _Bucket(self._burst(), clock.monotonic())

    def retune(self, settings: ProvisionerSettings) -> None:
        """Take over the settings of a reload."""
        self.settings = settings
        self._tokens.level = min(self._tokens.level, self._burst())

    def load(self, jobs: Iterable[JobRecord], machines: Iterable[MachineRecord]) -> None:
        """Take over what the records say: at the start."""
        self.refresh(machines)
        for job in sorted(jobs, key=lambda one: one.finished_at or one.created_at):
            if job.state in FINISHED:
                self._judge(job)
            else:
                self._open.add(job.op_id)
                if job.action == "create":
                    self._creating[job.op_id] = (job.node_id, job.pool)

    def refresh(self, machines: Iterable[MachineRecord]) -> None:
        """Replace the machines by what the records say now."""
        self._machines = {one.node_id: one.pool for one in machines}

    # ------------------------------------------------------------ admission

    def admit(self, job: JobRecord, blueprint: BlueprintSettings) -> Refusal | None:
        """Count the job in, or say why not. A job that was admitted is counted until `ended` or `withdraw`."""
        refusal = self._queue_full()
        if refusal is None and job.action == "create":
            refusal = self._breaker_open(job.pool) or self._too_many(job, blueprint) or self._too_fast()
        if refusal is not None:
            return refusal
        self._open.add(job.op_id)
        if job.action == "create":
            self._creating[job.op_id] = (job.node_id, job.pool)
            self._tokens.level -= 1
        return None

    def withdraw(self, op_id: str) -> None:
        """The admitted job was not written after all."""
        self._open.discard(op_id)
        if self._creating.pop(op_id, None) is not None:
            self._tokens.level = min(self._burst(), self._tokens.level + 1)

    def _queue_full(self) -> Refusal | None:
        limit = self.settings.max_queued_jobs
        if len(self._open) < limit:
            return None
        return Refusal("JOB_QUEUE_FULL", 503, f"{len(self._open)} jobs wait or run, the limit is {limit}", 10)

    def _too_many(self, job: JobRecord, blueprint: BlueprintSettings) -> Refusal | None:
        expected = dict(self._machines) | dict(self._creating.values())
        expected.pop(job.node_id, None)
        in_pool = sum(1 for pool in expected.values() if pool == job.pool)
        if in_pool >= blueprint.max_machines:
            why = f"pool {job.pool} has {in_pool} machines, its limit is {blueprint.max_machines}"
            return Refusal("POOL_MACHINES_LIMIT", 429, why, 60)
        if len(expected) >= self.settings.max_machines:
            why = f"there are {len(expected)} machines, the limit is {self.settings.max_machines}"
            return Refusal("TOTAL_MACHINES_LIMIT", 429, why, 60)
        return None

    def _burst(self) -> float:
        return max(1.0, self.settings.max_creations_per_minute)

    def _too_fast(self) -> Refusal | None:
        now, rate = self._clock.monotonic(), self.settings.max_creations_per_minute / 60.0
        self._tokens.level = min(self._burst(), self._tokens.level + (now - self._tokens.at) * rate)
        self._tokens.at = now
        if self._tokens.level >= 1:
            return None
        wait = max(1, math.ceil((1 - self._tokens.level) / rate))
        why = f"more than {self.settings.max_creations_per_minute:g} creations in a minute"
        return Refusal("CREATION_RATE", 429, why, wait)

    def _breaker_open(self, pool: str) -> Refusal | None:
        breaker = self._breakers.get(pool)
        if breaker is None or breaker.last_failure is None or breaker.failures < self.settings.breaker_failures:
            return None
        why = f"the last {breaker.failures} creations in pool {pool} failed"
        again = breaker.last_failure + timedelta(seconds=self.settings.breaker_reset_seconds)
        left = (again - self._clock.now()).total_seconds()
        if left > 0:
            return Refusal("CREATION_BREAKER_OPEN", 503, why, max(1, math.ceil(left)))
        if any(other == pool for _, other in self._creating.values()):
            return Refusal("CREATION_BREAKER_OPEN", 503, f"{why}; one creation is being tried", 30)
        return None

    # ------------------------------------------------------------ what happened

    def ended(self, job: JobRecord) -> None:
        """A job has ended."""
        self._open.discard(job.op_id)
        self._creating.pop(job.op_id, None)
        self._judge(job)

    def _judge(self, job: JobRecord) -> None:
        if job.action != "create":
            return
        if job.state == "succeeded":
            self._breakers.pop(job.pool, None)
        elif job.state == "failed" and job.error is not None and job.error.code not in _NO_VERDICT:
            breaker = self._breakers.setdefault(job.pool, _Breaker())
            breaker.failures += 1
            breaker.last_failure = job.finished_at

    def machine_made(self, node_id: str, pool: str) -> None:
        """A machine's record was written."""
        self._machines[node_id] = pool

    def machine_gone(self, node_id: str) -> None:
        """A machine's record was removed."""
        self._machines.pop(node_id, None)

    # ------------------------------------------------------------ what is

    def open_jobs(self) -> int:
        """Jobs that wait or run."""
        return len(self._open)

    def machines(self) -> dict[str, int]:
        """Machines per pool."""
        counts: dict[str, int] = {}
        for pool in self._machines.values():
            counts[pool] = counts.get(pool, 0) + 1
        return counts

    def open_breakers(self) -> list[str]:
        """Pools whose breaker is open or half open."""
        needed = self.settings.breaker_failures
        return sorted(pool for pool, breaker in self._breakers.items() if breaker.failures >= needed)
