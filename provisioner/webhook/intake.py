"""Take a job in: known or new, within the limits, on disk before it is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ClassVar, Literal, NamedTuple

from provisioner.engine.blueprints import Blueprints
from provisioner.jobs.locks import KeyedLocks
from provisioner.jobs.store import JobStore
from provisioner.limits import Limits, Refusal
from provisioner.webhook.epochs import Epochs
from secbeat.clock import Clock
from secbeat.errors import SecbeatError
from secbeat.store import Unavailable, WorkQueue
from secbeat.telemetry import context
from secbeat.wire.jobs import JobRecord
from secbeat.wire.webhook import Action, Operation, WebhookBody

log = logging.getLogger("provisioner.webhook")

# Clocks of two machines may differ by as much before an operation counts as overdue (DESIGN 3: alarm over 30 s).
_SKEW = timedelta(seconds=30)


class Refused(SecbeatError):
    """A request that is understood and not taken. ``headers`` go into the answer."""

    http_status: ClassVar[int] = 422

    def __init__(self, code: str, status: int, why: str, *, retry_after: int | None = None) -> None:
        super().__init__(code, why=why, status=status)
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


class Taken(NamedTuple):
    """What became of a request."""

    status: Literal["accepted", "known"]
    job: JobRecord


class Intake:
    """One door for signed operations and for those that are made up here.

    ``on_written`` hears the op_id of each new job as soon as its record stands.
    """

    def __init__(
        self, *, store: JobStore, queue: WorkQueue, limits: Limits, blueprints: Blueprints, epochs: Epochs, clock: Clock
    ) -> None:
        self._store, self._queue, self._limits = store, queue, limits
        self._blueprints, self._epochs, self._clock = blueprints, epochs, clock
        self._arriving = KeyedLocks()
        self.on_written: Callable[[str], None] = _nobody

    async def operation(self, body: WebhookBody, *, webhook_id: str, action: Action) -> Taken:
        """A signed request.

        Raises:
            Refused: 409 lower epoch, 422, 429 and 503 with Retry-After.
        """
        operation = body.operation
        if operation.action != action:
            door = {"create": "/provision", "destroy": "/deprovision"}[operation.action]
            raise Refused("WEBHOOK_ACTION", 422, f"action {operation.action} belongs to {door}")
        if operation.op_id != webhook_id:
            raise Refused("WEBHOOK_ID", 422, "webhook-id is not the op_id of the operation")
        try:
            highest = await self._epochs.admit(operation.cluster_id, operation.epoch)
        except Unavailable as error:
            raise _store_away(error) from None
        if highest is not None:
            why = f"epoch {operation.epoch} is over: cluster {operation.cluster_id} has reached {highest}"
            raise Refused("EPOCH_TOO_LOW", 409, why)
        return await self.take(self._record(body, operation))

    def _record(self, body: WebhookBody, operation: Operation) -> JobRecord:
        return JobRecord(
            op_id=operation.op_id,
            cluster_id=operation.cluster_id,
            action=operation.action,
            pool=operation.pool,
            node_id=operation.node_id,
            epoch=operation.epoch,
            reason=body.reason,
            blueprint=operation.blueprint,
            created_at=self._clock.now(),
            deadline=operation.deadline,
            failed_node_id=body.failed_node_id,
            traceparent=context.checked(operation.traceparent),
        )

    async def take(self, job: JobRecord) -> Taken:
        """Write and enqueue a job, unless it is known.

        Raises:
            Refused: 422, 429, 503.
        """
        # Duplicates that arrive together would each count against the limits; one goes first, the others find it.
        async with self._arriving.hold(job.op_id):
            try:
                known = await self._store.get(job.op_id)
                return await self._new(job) if known is None else await self._known(known)
            except Unavailable as error:
                raise _store_away(error) from None

    async def _known(self, job: JobRecord) -> Taken:
        if job.state == "queued":
            await self._queue.put(job.op_id)  # its first enqueueing may have failed; the queue drops a duplicate
        return Taken("known", job)

    async def _new(self, job: JobRecord) -> Taken:
        job = self._complete(job)
        if job.deadline <= self._clock.now() - _SKEW:
            raise Refused("DEADLINE_PASSED", 422, "the operation's deadline has passed already")
        refusal = self._limits.admit(job, self._blueprints.settings(job.blueprint))
        if refusal is not None:
            raise _refused(refusal)
        try:
            standing = await self._store.create(job)
        except BaseException:
            self._limits.withdraw(job.op_id)
            raise
        if standing is not None:  # another provisioner was faster
            self._limits.withdraw(job.op_id)
            return Taken("known", standing)
        self.on_written(job.op_id)
        await self._queue.put(job.op_id)
        log.info(
            "Job %s: %s node %s of pool %s (%s)", job.op_id, job.action, job.node_id, job.pool, job.reason,
            extra={"action": "job_accepted", "op_id": job.op_id, "pool": job.pool, "signed": job.signed},
        )  # fmt: skip
        return Taken("accepted", job)

    def _complete(self, job: JobRecord) -> JobRecord:
        if job.blueprint not in self._blueprints:
            names = ", ".join(self._blueprints.names())
            raise Refused("BLUEPRINT_UNKNOWN", 422, f"there is no blueprint {job.blueprint!r}; there are: {names}")
        settings = self._blueprints.settings(job.blueprint)
        return job.model_copy(update={"engine": settings.engine, "target": settings.target})

    def deadline(self, blueprint: str, action: Action) -> datetime:
        """The deadline of an operation that is made up here: its time limit, and as much again for waiting."""
        settings = self._blueprints.settings(blueprint)
        limit = settings.create_timeout_seconds if action == "create" else settings.destroy_timeout_seconds
        return self._clock.now() + timedelta(seconds=2 * limit)


def _nobody(_op_id: str) -> None:
    """Nobody wants to hear of new jobs."""


def _refused(refusal: Refusal) -> Refused:
    return Refused(refusal.code, refusal.status, refusal.why, retry_after=refusal.retry_after)


def _store_away(error: Unavailable) -> Refused:
    return Refused("STATE_UNAVAILABLE", 503, f"the store did not confirm: {error}", retry_after=5)
