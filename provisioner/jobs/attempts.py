"""One attempt at a job as its record tells it: taken, run, and brought to an end that is stored."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import datetime

from provisioner import retry
from provisioner.jobs.execute import Executor, Verdict
from provisioner.jobs.logfile import JobLog, LogHub
from provisioner.jobs.progress import Reporter
from provisioner.jobs.store import JobStore
from provisioner.limits import Limits
from secbeat.clock import Clock, wire_time
from secbeat.store import Unavailable
from secbeat.telemetry.context import within
from secbeat.wire.jobs import FINISHED, JobError, JobRecord, JobState, Progress

log = logging.getLogger("provisioner.jobs")

BUSY_SECONDS = 5.0
_STORE_RETRY_SECONDS = 1.0

EndedHook = Callable[[JobRecord], Awaitable[None]]


async def _nobody(_record: JobRecord) -> None:
    """Nobody wants to hear of it."""


class Attempts:
    """Runs attempts as ``owner``; the caller holds the node's lock.

    ``on_ended`` hears of every job that ended here, ``on_left_behind`` of every running job whose process is gone.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        executor: Executor,
        limits: Limits,
        hub: LogHub,
        clock: Clock,
        owner: str,
        on_ended: EndedHook,
        on_left_behind: EndedHook = _nobody,
    ) -> None:
        self._store, self._executor, self._limits = store, executor, limits
        self._hub, self._clock, self._on_ended = hub, clock, on_ended
        self._on_left_behind = on_left_behind
        self.owner = owner
        self.running: set[str] = set()

    async def run(self, record: JobRecord, cancelled: asyncio.Event) -> float | None:
        """One attempt. Returns the seconds until the next one, None: the job has ended. Raises Unavailable.

        ``record`` may be a little old: the job is taken by compare-and-set, or not at all.
        """
        with within(record.traceparent):
            return await self._attempt(record, cancelled)

    async def _attempt(self, record: JobRecord, cancelled: asyncio.Event) -> float | None:
        left_behind = record.state == "running" and record.owner != self.owner
        if (error := self._hopeless(record)) is not None:
            state: JobState = "cancelled" if error.code == "JOB_CANCELLED" else "failed"
            await self._finish(record, state, Verdict(error=error))
            if left_behind:
                await self._on_left_behind(record)
            return None
        taken = await self._take_over(record)
        if taken is None:
            return BUSY_SECONDS
        if left_behind:
            await self._on_left_behind(record)
        self.running.add(record.op_id)
        try:
            verdict = await self._run(taken, cancelled)
        finally:
            self.running.discard(record.op_id)
        return await self._conclude(taken, verdict)

    def _hopeless(self, record: JobRecord) -> JobError | None:
        if record.cancel_requested_at is not None:
            return JobError(code="JOB_CANCELLED", message="it was cancelled before it started")
        if self._clock.now() >= record.deadline:
            last = f"; last: {record.error.code}: {record.error.message}" if record.error is not None else ""
            message = f"its deadline, {wire_time(record.deadline)}, passed before it could start{last}"
            return JobError(code="DEADLINE_PASSED", message=message[:2000])
        if record.attempt >= retry.MAX_ATTEMPTS:
            return JobError(code="JOB_POISON", message=f"{record.attempt} attempts were begun and none came to an end")
        return None

    async def _take_over(self, seen: JobRecord) -> JobRecord | None:
        """Mark the job as ours; None if somebody else was faster."""
        lost = False

        def take(now: JobRecord) -> JobRecord | None:
            nonlocal lost
            lost = (now.state, now.owner, now.attempt) != (seen.state, seen.owner, seen.attempt)
            if lost:
                return None
            moment = self._clock.now()
            started: datetime = now.started_at or moment
            update = {"state": "running", "owner": self.owner, "attempt": now.attempt + 1, "started_at": started}
            update["attempt_started_at"] = moment
            return now.model_copy(update=update | {"progress": Progress(stage="starting")})

        taken = await self._store.change(seen.op_id, take)
        return None if lost else taken

    async def _run(self, record: JobRecord, cancelled: asyncio.Event) -> Verdict:
        job_log = JobLog(self._hub, record.op_id)
        try:
            job_log.open()
        except OSError as error:
            message = f"the job's directory cannot be written: {error.filename}: {error.strerror}"
            return Verdict(error=JobError(code="JOB_DIR_UNWRITABLE", message=message))
        reporter = Reporter(self._store, job_log, record, self._clock, on_cancel=cancelled.set)
        reporting = asyncio.create_task(reporter.run())
        if record.attempt > 1:
            job_log.line(f"--- attempt {record.attempt}, {wire_time(self._clock.now())}")
        try:
            verdict = await self._executor.attempt(record, reporter, cancelled)
            if verdict.error is not None:
                job_log.line(f"{verdict.error.code}: {self._executor.redactor.text(verdict.error.message)}")
            return verdict
        finally:
            reporting.cancel()
            job_log.close()

    # ------------------------------------------------------------ its end

    async def request_cancel(self, op_id: str) -> JobRecord | None:
        """Record that a job shall stop. One that waits ends now; one that runs is stopped by whoever runs it.

        Returns the record as it stands then; None: there is no such job.
        """
        now = self._clock.now()
        ended: JobRecord | None = None

        def ask(record: JobRecord) -> JobRecord | None:
            nonlocal ended
            ended = None
            if record.state in FINISHED or record.cancel_requested_at is not None:
                return None
            if record.state == "running":
                return record.model_copy(update={"cancel_requested_at": now})
            error = JobError(code="JOB_CANCELLED", message="it was cancelled before it started")
            update = {"state": "cancelled", "cancel_requested_at": now, "finished_at": now, "error": error}
            ended = record.model_copy(update=update)
            return ended

        found = await self._store.change(op_id, ask)
        if ended is not None and found == ended:
            await self._tell(ended)
        return found

    async def _conclude(self, record: JobRecord, verdict: Verdict) -> float | None:
        error = verdict.error
        if error is None:
            await self._finish(record, "succeeded", verdict)
            return None
        if error.code == "JOB_CANCELLED":
            await self._finish(record, "cancelled", verdict)
            return None
        jitter = random.random()  # noqa: S311 - spreads retries, nothing secret
        wait = retry.delay(error, record.attempt, now=self._clock.now(), deadline=record.deadline, jitter=jitter)
        if wait is None:
            await self._finish(record, "failed", verdict)
            return None
        log.warning(
            "Job %s, attempt %d: %s; again in %.1f s",
            record.op_id, record.attempt, error.message, wait,
            extra={"action": "job_retry", "op_id": record.op_id, "pool": record.pool, "code": error.code},
        )  # fmt: skip
        await self._settle(record, lambda now: now.model_copy(update={"state": "queued", "owner": "", "error": error}))
        return wait

    async def _finish(self, record: JobRecord, state: JobState, verdict: Verdict) -> None:
        def end(now: JobRecord) -> JobRecord:
            update = {
                "state": state,
                "error": verdict.error,
                "machine": verdict.machine,
                "blueprint_digest": verdict.digest or now.blueprint_digest,
                "finished_at": self._clock.now(),
            }
            return now.model_copy(update=update)

        ended = await self._settle(record, end)
        if ended is None:
            return
        level = logging.INFO if state == "succeeded" else logging.WARNING
        reason = f": {ended.error.message}" if ended.error is not None else ""
        log.log(
            level, "Job %s (%s %s) %s%s", ended.op_id, ended.action, ended.node_id, state, reason,
            extra={"action": "job_ended", "op_id": ended.op_id, "pool": ended.pool, "state": state},
        )  # fmt: skip
        await self._tell(ended)

    async def _tell(self, ended: JobRecord) -> None:
        self._limits.ended(ended)
        self._hub.changed(ended.op_id)
        await self._on_ended(ended)

    async def _settle(self, record: JobRecord, change: Callable[[JobRecord], JobRecord]) -> JobRecord | None:
        """Write how it ended, however long the store takes: the work was done and must not be done again.

        None: the record is gone, or belongs to somebody else by now.
        """
        ours = (record.owner, record.attempt)
        written: JobRecord | None = None

        def guarded(now: JobRecord) -> JobRecord | None:
            nonlocal written
            if now.state in FINISHED or (now.owner, now.attempt) != ours:
                return None
            written = change(now)
            return written

        while True:
            try:
                found = await self._store.change(record.op_id, guarded)
            except Unavailable as error:
                log.warning("Job %s: its end is not stored yet: %s", record.op_id, error, extra={"action": "job_waits"})
                await self._clock.sleep(_STORE_RETRY_SECONDS)
                continue
            return found if found is not None and found == written else None
