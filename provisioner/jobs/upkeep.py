"""What runs beside the jobs: taking over what a dead process left, re-enqueueing, forgetting what is old."""

from __future__ import annotations

import asyncio
import logging
import shutil
from datetime import timedelta

from provisioner.engine.blueprints import Blueprints
from provisioner.jobs import owner as owners
from provisioner.jobs.logfile import LogHub
from provisioner.jobs.store import JOB, JobStore
from provisioner.jobs.worker import Worker
from provisioner.limits import Limits
from provisioner.webhook.unsigned import PREFIX
from secbeat import ids
from secbeat.clock import Clock
from secbeat.store import Unavailable, WorkQueue
from secbeat.wire.jobs import FINISHED, JobRecord

log = logging.getLogger("provisioner.jobs")

_INTERVAL_SECONDS = 60.0
_FORGOTTEN_AFTER = timedelta(seconds=60)


class Upkeep:
    """`recover` once at the start, then `run`. ``retention``: how long finished jobs are remembered."""

    def __init__(
        self,
        *,
        store: JobStore,
        queue: WorkQueue,
        worker: Worker,
        limits: Limits,
        hub: LogHub,
        blueprints: Blueprints,
        clock: Clock,
        retention: timedelta,
    ) -> None:
        self._store, self._queue, self._worker, self._limits = store, queue, worker, limits
        self._hub, self._blueprints, self._clock = hub, blueprints, clock
        self.retention = retention

    async def recover(self) -> None:
        """Load the limits from the records and take over the jobs of processes that are gone. Raises Unavailable."""
        jobs, machines = await self._store.jobs(), await self._store.machines()
        self._limits.load(jobs, machines)
        await asyncio.to_thread(self._remove_work_dirs, {job.op_id for job in jobs if job.state == "running"})
        for job in reversed(jobs):  # the oldest first
            if job.state == "running" and owners.alive(job.owner) is False:
                log.warning(
                    "Job %s was left by a process that is gone; it is taken over", job.op_id,
                    extra={"action": "job_recovered", "op_id": job.op_id},
                )  # fmt: skip
                self._worker.adopt(job.op_id)
            elif job.state == "queued":
                await self._queue.put(job.op_id)

    def _remove_work_dirs(self, running: set[str]) -> None:
        """Private directories of runs that never came to remove theirs."""
        for path in self._hub.jobs_dir.glob("*/work-*"):
            if path.parent.name not in running:
                shutil.rmtree(path, ignore_errors=True)

    async def run(self) -> None:
        """Every minute, until cancelled."""
        while True:
            await self._clock.sleep(_INTERVAL_SECONDS)
            try:
                await self.once()
            except Unavailable as error:
                log.warning("Upkeep waits for the store: %s", error, extra={"action": "upkeep_waits"})

    async def once(self) -> None:
        """One round. Raises Unavailable."""
        now = self._clock.now()
        jobs, machines = await self._store.jobs(), await self._store.machines()
        self._limits.refresh(machines)
        for job in jobs:
            if job.state in FINISHED:
                if now - (job.finished_at or job.created_at) > self.retention:
                    await self._forget(job)
            elif not self._worker.holds(job.op_id) and self._lost(job):
                # Its message is gone, or never came to be: enqueued again, and a duplicate is dropped by the queue.
                await self._queue.put(job.op_id)
        self._blueprints.forget({machine.blueprint_digest for machine in machines})
        await self._forget_slots({job.op_id for job in jobs})

    def _lost(self, job: JobRecord) -> bool:
        if job.state == "running":
            return owners.alive(job.owner) is False
        return self._clock.now() - job.created_at > _FORGOTTEN_AFTER

    async def _forget(self, job: JobRecord) -> None:
        await self._store.bucket.delete(JOB + job.op_id)
        await asyncio.to_thread(shutil.rmtree, self._hub.directory(ids.check_op_id(job.op_id)), ignore_errors=True)

    async def _forget_slots(self, known: set[str]) -> None:
        """The keys of unsigned senders live as long as the jobs that they name."""
        for entry in await self._store.bucket.entries(PREFIX):
            if entry.key != PREFIX + "cluster" and entry.value.decode() not in known:
                await self._store.bucket.delete(entry.key)
