"""One attempt at one job: what has to be there before the playbook runs, and what its result means."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from provisioner.engine import marks, result
from provisioner.engine.base import Engine, EngineJob, Observer, Outcome
from provisioner.engine.blueprints import Blueprint, Blueprints
from provisioner.inventory import Lister
from provisioner.jobs.logfile import LogHub
from provisioner.jobs.store import JobStore
from provisioner.joining import JoinFailed, JoinSource, write_join_file
from provisioner.limits import Limits
from provisioner.redact import Redactor, secrets_in
from secbeat import ids
from secbeat.clock import Clock
from secbeat.errors import ConfigError
from secbeat.store import Unavailable
from secbeat.wire.jobs import JobError, JobRecord, Machine, MachineRecord
from secbeat.wire.registration import JoinSecret

log = logging.getLogger("provisioner.jobs")

_STILL_RUNS = "{} processes of an earlier attempt still run and do not end by SIGKILL"


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended; ``error`` None: well. ``machine`` and ``digest`` go into the record."""

    error: JobError | None = None
    machine: Machine | None = None
    digest: str = ""


@dataclass(frozen=True)
class Site:
    """Where things are on this machine."""

    machines_dir: Path
    jobs_dir: Path
    server_url: str


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Runs attempts. The caller holds the node's lock and has marked the job running."""

    store: JobStore
    engine: Engine
    blueprints: Blueprints
    joins: JoinSource
    lister: Lister
    limits: Limits
    hub: LogHub
    site: Site
    redactor: Redactor
    clock: Clock
    sweep: Callable[[str], int] = marks.sweep
    left: Callable[[str], int] = marks.count

    async def attempt(self, job: JobRecord, observer: Observer, cancelled: asyncio.Event) -> Verdict:
        """One attempt; failures come back as a verdict, only a stop of the service as CancelledError."""
        if job.attempt > 1 and (error := await asyncio.to_thread(self._clear, job.op_id)):
            return Verdict(error=error)
        return await self._attempt(job, observer, cancelled)

    async def _attempt(self, job: JobRecord, observer: Observer, cancelled: asyncio.Event) -> Verdict:
        join = self._join_path(job)
        try:
            if job.action == "create":
                return await self._create(job, observer, cancelled, join)
            return await self._destroy(job, observer, cancelled)
        except (JoinFailed, result.ResultInvalid) as failed:
            return Verdict(error=failed.error)
        except ConfigError as error:
            return Verdict(error=JobError(code=error.code, message=error.why, retryable=False))
        except Unavailable as error:
            message = f"the store did not confirm a write: {error}"
            return Verdict(error=JobError(code="STATE_UNAVAILABLE", message=message))
        except OSError as error:
            return Verdict(error=JobError(code="JOB_DIR_UNWRITABLE", message=f"{error.filename}: {error.strerror}"))
        finally:
            if job.target != "local":
                with suppress(OSError):
                    join.unlink(missing_ok=True)

    def _clear(self, op_id: str) -> JobError | None:
        """What an attempt whose service was killed has left: processes, and its directory with the variables in it.

        An error if processes do not end: beside them no new attempt begins.
        """
        self.sweep(op_id)
        for path in self.hub.directory(op_id).glob("work-*"):
            shutil.rmtree(path, ignore_errors=True)
        left = self.left(op_id)
        return JobError(code="JOB_CRASHED", message=_STILL_RUNS.format(left)) if left else None

    # ------------------------------------------------------------ create

    async def _create(self, job: JobRecord, observer: Observer, cancelled: asyncio.Event, join: Path) -> Verdict:
        blueprint = self.blueprints.current(job.blueprint)
        if not self.blueprints.kept(blueprint):
            await asyncio.to_thread(self.blueprints.keep, blueprint)
        record = MachineRecord(
            cluster_id=job.cluster_id,
            node_id=job.node_id,
            op_id=job.op_id,
            pool=job.pool,
            blueprint=job.blueprint,
            blueprint_digest=blueprint.digest,
            target=job.target,
            signed=job.signed,
            created_at=self.clock.now(),
        )
        secret = await self._introduce(job, record, join)
        redactor = self._redactor(blueprint, secret)
        outcome = await self._play(job, blueprint, observer, cancelled, redactor, with_join=secret is not None)
        if outcome.error is not None:
            return Verdict(error=outcome.error, digest=blueprint.digest)
        machine = result.created(outcome.result, name=_name(job), digest=blueprint.digest)
        await self.store.put_machine(record.model_copy(update={"machine": machine}))
        return Verdict(machine=machine, digest=blueprint.digest)

    async def _introduce(self, job: JobRecord, record: MachineRecord, join: Path) -> JoinSecret | None:
        """The machine's record and its join file, written side by side: both have to be there before the engine."""
        writing = asyncio.ensure_future(self.store.put_machine(record))
        try:
            secret = await self._join_secret(job)
            if secret is not None:
                write_join_file(join, secret, server_url=self.site.server_url)
        except JoinFailed:
            await writing
            if job.attempt == 1:  # a later attempt may follow one that has made the machine
                await self.store.drop_machine(job.node_id)
            raise
        except BaseException:
            writing.cancel()
            raise
        await writing
        self.limits.machine_made(job.node_id, job.pool)
        return secret

    async def _join_secret(self, job: JobRecord) -> JoinSecret | None:
        """The secret to write, or None: for senders that know no join, and where an earlier attempt's node runs."""
        if not job.signed:
            return None
        try:
            return await self.joins.fetch(job.op_id)
        except JoinFailed as failed:
            joined = failed.error.code == "OPERATION_ENDED" and job.attempt > 1
            if joined and await self._listed_running(job):
                return None
            raise

    def _join_path(self, job: JobRecord) -> Path:
        """In the node's own directory for target local; elsewhere beside the job's log, removed at its end."""
        base = self.site.machines_dir / _name(job) if job.target == "local" else self.site.jobs_dir / job.op_id
        return base / "join.json"

    # ------------------------------------------------------------ destroy

    async def _destroy(self, job: JobRecord, observer: Observer, cancelled: asyncio.Event) -> Verdict:
        known = await self.store.machine(job.node_id)
        if known is None:
            blueprint = self.blueprints.current(job.blueprint)
        else:
            blueprint = self.blueprints.of_machine(known.blueprint, known.blueprint_digest)
        outcome = await self._play(job, blueprint, observer, cancelled, self._redactor(blueprint, None))
        if outcome.error is not None:
            return Verdict(error=outcome.error, digest=blueprint.digest)
        result.destroyed(outcome.result, name=_name(job))
        if await self._listed_running(job):
            message = f"the playbook says that {_name(job)} is gone, but target {job.target} still lists it as running"
            return Verdict(error=JobError(code="DESTROY_UNPROVED", message=message), digest=blueprint.digest)
        await self.store.drop_machine(job.node_id)
        self.limits.machine_gone(job.node_id)
        machine = known.machine if known is not None else None
        return Verdict(machine=machine, digest=blueprint.digest)

    async def _listed_running(self, job: JobRecord) -> bool:
        listed = await self.lister.listed(job.target)
        return any(one.node_id == job.node_id and one.running for one in listed.machines)

    # ------------------------------------------------------------ both

    def _redactor(self, blueprint: Blueprint, secret: JoinSecret | None) -> Redactor:
        secrets = list(secrets_in(blueprint.settings.variables))
        if secret is not None:
            secrets.append(secret.secret.get_secret_value())
        return self.redactor.extended(secrets)

    async def _play(
        self,
        job: JobRecord,
        blueprint: Blueprint,
        observer: Observer,
        cancelled: asyncio.Event,
        redactor: Redactor,
        *,
        with_join: bool = False,
    ) -> Outcome:
        limit = blueprint.timeout(job.action)
        left = (job.deadline - self.clock.now()) / timedelta(seconds=1)
        site = {
            "machines_dir": str(self.site.machines_dir),
            "jobs_dir": str(self.site.jobs_dir),
            "server_url": self.site.server_url,
        }
        if with_join:
            site["join_file"] = str(self._join_path(job))
        return await self.engine.run(
            EngineJob(
                op_id=job.op_id,
                action=job.action,
                blueprint=blueprint,
                request={
                    "op_id": job.op_id,
                    "node_id": job.node_id,
                    "pool": job.pool,
                    "cluster_id": job.cluster_id,
                    "name": _name(job),
                    "action": job.action,
                    "reason": job.reason,
                },
                site=site,
                work_dir=self.hub.directory(job.op_id) / f"work-{job.attempt}",
                # A machine that comes after the deadline is one that nobody waits for any more.
                timeout_seconds=max(1.0, min(limit, left)) if job.action == "create" else limit,
                redactor=redactor,
            ),
            observer,
            cancelled,
        )


def _name(job: JobRecord) -> str:
    return ids.machine_name(job.pool, job.node_id)
