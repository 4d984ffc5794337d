"""The worker: takes jobs from the durable queue and sees each through to its end, once.

A job belongs to the process named in its record. A delivery of a job whose owner lives is given back; one whose owner
is dead is taken over: the playbook runs again and finds by name what its first run made.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime

from provisioner import retry
from provisioner.jobs import owner as owners
from provisioner.jobs.execute import Executor, Verdict
from provisioner.jobs.locks import KeyedLocks
from provisioner.jobs.logfile import JobLog, LogHub
from provisioner.jobs.progress import Reporter
from provisioner.jobs.store import JobStore
from provisioner.limits import Limits
from secbeat.clock import Clock, wire_time
from secbeat.settings import ProvisionerSettings
from secbeat.store import Unavailable, Work, WorkQueue
from secbeat.wire.jobs import FINISHED, JobError, JobRecord, JobState, Progress

log = logging.getLogger("provisioner.jobs")

_EXTEND_SECONDS = 8.0
_TAKE_SECONDS = 5.0
_BUSY_SECONDS = 5.0
_STORE_RETRY_SECONDS = 1.0
# Deliveries held beyond those that run: jobs that wait for their node or their blueprint must not stop the others.
_HELD_PER_SLOT = 4

EndedHook = Callable[[JobRecord], Awaitable[None]]


class Worker:
    """One per process. ``on_ended`` hears of every job that ended here."""

    def __init__(
        self,
        *,
        queue: WorkQueue,
        store: JobStore,
        executor: Executor,
        limits: Limits,
        hub: LogHub,
        settings: ProvisionerSettings,
        parallel: dict[str, int],
        clock: Clock,
        owner: str,
        on_ended: EndedHook,
    ) -> None:
        self._queue, self._store, self._executor, self._limits = queue, store, executor, limits
        self._hub, self._clock, self._owner, self._on_ended = hub, clock, owner, on_ended
        self._nodes = KeyedLocks()
        self._slots = asyncio.Semaphore(settings.max_concurrent_jobs)
        self._held = asyncio.Semaphore(settings.max_concurrent_jobs * _HELD_PER_SLOT)
        self._blueprints = {name: asyncio.Semaphore(count) for name, count in parallel.items()}
        self._handling: dict[str, _Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.running: set[str] = set()

    # ------------------------------------------------------------ taking

    async def run(self) -> None:
        """Take and handle jobs until cancelled."""
        try:
            while True:
                await self._held.acquire()
                work = await self._take()
                if work is None:
                    self._held.release()
                    continue
                self._spawn(work)
        finally:
            await self.close()

    async def _take(self) -> Work | None:
        try:
            return await self._queue.take(_TAKE_SECONDS)
        except Unavailable as error:
            log.warning("The job queue does not answer: %s", error, extra={"action": "queue_unavailable"})
            await self._clock.sleep(_STORE_RETRY_SECONDS)
            return None

    def _spawn(self, work: Work) -> None:
        task = asyncio.create_task(self._handle(work), name=f"job {work.op_id}")
        self._tasks.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            self._held.release()
            if not ended.cancelled() and (error := ended.exception()) is not None:
                log.error("Job %s: the worker failed", work.op_id, exc_info=error, extra={"action": "job_failed"})

        task.add_done_callback(done)

    async def adopt(self, op_id: str) -> None:
        """Handle a job of a dead owner at once, without waiting for the queue to deliver it again."""
        await self._held.acquire()
        self._spawn(_Adopted(op_id, self._queue))

    async def close(self) -> None:
        """Stop the running jobs; they stay in the queue and are delivered again."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=25)

    def holds(self, op_id: str) -> bool:
        """Whether this process has a delivery of the job."""
        return op_id in self._handling

    def cancel(self, op_id: str) -> bool:
        """Stop a job if it is handled here; the record says that somebody asked for it."""
        held = self._handling.get(op_id)
        if held is not None:
            held.cancelled.set()
        return held is not None

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
            self._limits.ended(ended)
            self._hub.changed(op_id)
            await self._on_ended(ended)
        self.cancel(op_id)
        return found

    # ------------------------------------------------------------ one delivery

    async def _handle(self, work: Work) -> None:
        op_id = work.op_id
        if (known := self._handling.get(op_id)) is not None:
            known.work = work  # delivered again while we are at it: the newest delivery is the one to answer
            return
        held = self._handling[op_id] = _Held(work)
        extending = asyncio.create_task(self._extend(held))
        try:
            wait = await self._see_through(op_id, held.cancelled)
        except Unavailable as error:
            log.warning("Job %s waits for the store: %s", op_id, error, extra={"action": "job_waits", "op_id": op_id})
            wait = _BUSY_SECONDS
        finally:
            extending.cancel()
            del self._handling[op_id]
        if wait is not None:
            await self._give_back(held.work, wait)
        else:
            with suppress(Unavailable):  # delivered once more, found finished
                await held.work.done()

    async def _extend(self, held: _Held) -> None:
        while True:
            await self._clock.sleep(_EXTEND_SECONDS)
            with suppress(Unavailable):
                await held.work.extend()

    async def _give_back(self, work: Work, seconds: float) -> None:
        with suppress(Unavailable):
            await work.again(seconds)

    async def _see_through(self, op_id: str, cancelled: asyncio.Event) -> float | None:
        """Run one attempt if it is ours to run. Returns the seconds until the next delivery, None: it has ended."""
        record = await self._store.get(op_id)
        if record is None or record.state in FINISHED:
            return None
        if record.state == "running" and record.owner != self._owner and owners.alive(record.owner):
            return _BUSY_SECONDS
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._nodes.hold(record.node_id))
            if (per_blueprint := self._blueprints.get(record.blueprint)) is not None:
                await stack.enter_async_context(per_blueprint)
            await stack.enter_async_context(self._slots)
            return await self._attempt(op_id, cancelled)

    async def _attempt(self, op_id: str, cancelled: asyncio.Event) -> float | None:
        # Read again: it may have been cancelled, or its deadline have passed, while it waited for its turn.
        record = await self._store.get(op_id)
        if record is None or record.state in FINISHED:
            return None
        if (error := self._hopeless(record)) is not None:
            state: JobState = "cancelled" if error.code == "JOB_CANCELLED" else "failed"
            await self._finish(record, state, Verdict(error=error))
            return None
        taken = await self._take_over(record)
        if taken is None:
            return _BUSY_SECONDS
        self.running.add(op_id)
        try:
            verdict = await self._run(taken, cancelled)
        finally:
            self.running.discard(op_id)
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
            started: datetime = now.started_at or self._clock.now()
            update = {"state": "running", "owner": self._owner, "attempt": now.attempt + 1, "started_at": started}
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
        self._limits.ended(ended)
        self._hub.changed(record.op_id)
        level = logging.INFO if state == "succeeded" else logging.WARNING
        reason = f": {ended.error.message}" if ended.error is not None else ""
        log.log(
            level, "Job %s (%s %s) %s%s", ended.op_id, ended.action, ended.node_id, state, reason,
            extra={"action": "job_ended", "op_id": ended.op_id, "pool": ended.pool, "state": state},
        )  # fmt: skip
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


@dataclass
class _Held:
    """A delivery that is being worked on."""

    work: Work
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


class _Adopted:
    """Stands for a delivery that the queue has not made: a job found in the records."""

    def __init__(self, op_id: str, queue: WorkQueue) -> None:
        self.op_id = op_id
        self.deliveries = 1
        self._queue = queue

    async def done(self) -> None:
        """The queue's own delivery will find the job finished."""

    async def extend(self) -> None:
        """Nothing is outstanding."""

    async def again(self, delay_seconds: float) -> None:
        """The queue delivers it, now or when its own message is due; enqueueing twice is no harm."""
        del delay_seconds
        await self._queue.put(self.op_id)
