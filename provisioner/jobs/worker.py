"""The worker: takes jobs from the durable queue and sees each through to its end, once.

A job belongs to the process named in its record. A delivery of a job whose owner lives is given back; one whose owner
is dead is taken over: the playbook runs again and finds by name what its first run made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

from provisioner.jobs import owner as owners
from provisioner.jobs.attempts import BUSY_SECONDS, Attempts
from provisioner.jobs.locks import Gate, KeyedLocks
from provisioner.jobs.store import JobStore
from secbeat.clock import Clock
from secbeat.settings import ProvisionerSettings
from secbeat.store import Unavailable, Work, WorkQueue
from secbeat.wire.jobs import FINISHED, JobRecord

log = logging.getLogger("provisioner.jobs")

_EXTEND_SECONDS = 8.0
_TAKE_SECONDS = 5.0
_STORE_RETRY_SECONDS = 1.0
# Deliveries held beyond those that run: jobs that wait for their node or their blueprint must not stop the others.
_HELD_PER_SLOT = 4
_OLD_SECONDS = 0.2


class Worker:
    """One per process: deliveries, locks and limits of concurrency around `Attempts`."""

    def __init__(
        self,
        *,
        queue: WorkQueue,
        store: JobStore,
        attempts: Attempts,
        settings: ProvisionerSettings,
        parallel: Mapping[str, int],
        clock: Clock,
    ) -> None:
        self._queue, self._store, self._attempts, self._clock = queue, store, attempts, clock
        self._nodes = KeyedLocks()
        self._slots = Gate(settings.max_concurrent_jobs)
        self._most_held = settings.max_concurrent_jobs * _HELD_PER_SLOT
        self._room = asyncio.Event()
        self._taking = False
        self._blueprints = {name: Gate(count) for name, count in parallel.items()}
        self._handling: dict[str, _Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def resize(self, concurrent: int, parallel: Mapping[str, int]) -> None:
        """Change how many jobs run at one time, in all and per blueprint."""
        self._slots.resize(concurrent)
        self._most_held = concurrent * _HELD_PER_SLOT
        self._room.set()
        for name, count in parallel.items():
            self._blueprints[name].resize(count)

    # ------------------------------------------------------------ taking

    async def run(self) -> None:
        """Take and handle jobs until cancelled."""
        self._taking = True
        try:
            while True:
                while len(self._tasks) >= self._most_held:
                    self._room.clear()
                    await self._room.wait()
                if (work := await self._take()) is not None:
                    self._spawn(work)
        finally:
            self._taking = False
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
            self._room.set()
            if not ended.cancelled() and (error := ended.exception()) is not None:
                log.error("Job %s: the worker failed", work.op_id, exc_info=error, extra={"action": "job_failed"})

        task.add_done_callback(done)

    def start_now(self, op_id: str) -> None:
        """Handle a job that was just written, if there is a place: sooner than the queue delivers it.

        Its message is enqueued all the same, and taken for the answer to this start when it comes.
        """
        if self._taking and len(self._tasks) < self._slots.size:
            self._spawn(_Adopted(op_id, self._queue))

    def adopt(self, op_id: str) -> None:
        """Handle a job of a dead owner at once, without waiting for the queue to deliver it again."""
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
        """Ask for a job to stop; see `Attempts.request_cancel`."""
        found = await self._attempts.request_cancel(op_id)
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
            wait = BUSY_SECONDS
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
        record = self._store.seen(op_id)
        if record is None or record.state != "queued":  # others change a job that is not waiting for us
            record = await self._store.get(op_id)
        if record is None:
            return None
        if record.state == "running" and record.owner != self._attempts.owner and owners.alive(record.owner):
            return BUSY_SECONDS
        began = self._clock.monotonic()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._nodes.hold(record.node_id))
            if (per_blueprint := self._blueprints.get(record.blueprint)) is not None:
                await stack.enter_async_context(per_blueprint)
            await stack.enter_async_context(self._slots)
            if self._clock.monotonic() - began > _OLD_SECONDS or record.state in FINISHED:
                # It may have been cancelled, or its deadline have passed, while it waited for its turn.
                record = await self._store.get(op_id)
            if record is None or record.state in FINISHED:
                return None
            return await self._attempts.run(record, cancelled)


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
