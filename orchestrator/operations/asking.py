"""Ask the receiver, and follow the job that it makes of it: what creating and destroying have in common."""

from __future__ import annotations

import logging
from datetime import timedelta
from urllib.parse import urlsplit

from orchestrator.operations import body, stages, tracing
from orchestrator.operations.backoff import full_jitter
from orchestrator.operations.context import Context, error
from orchestrator.operations.webhook import Delivery
from secbeat.wire.jobs import FINISHED, JobRecord
from secbeat.wire.operations import OperationRecord

log = logging.getLogger("ResourceManager")

_SUPERSEDED_PAUSE = 10.0


def until_next_attempt(context: Context, op: OperationRecord) -> float:
    """Seconds until the planned attempt; 0: now."""
    if op.next_attempt_at is None:
        return 0.0
    return max((op.next_attempt_at - context.clock.now()).total_seconds(), 0.0)


async def ask(context: Context, op: OperationRecord, url: str) -> tuple[OperationRecord, Delivery]:
    """One attempt, through the gate: counted on disk before it leaves, its outcome written after.

    Raises:
        GateClosed: nothing was written or sent.
        Unavailable: the attempt could not be written, so it was not made.
    """

    async def send(epoch: int) -> tuple[OperationRecord, Delivery]:
        written = await context.records.change_operation(
            op.op_id,
            lambda one: one.model_copy(
                update={"attempts": one.attempts + 1, "calls": one.calls + 1, "may_exist": True}
            ),
        )
        failed = None if op.failed_node_id is None else context.records.node(op.failed_node_id)
        payload = body.encode(
            written,
            epoch=epoch,
            now=context.clock.now(),
            fleet=context.fleet(op.pool),
            failed=failed,
            callback_url=context.callback_url(op.op_id),
        )
        start, traceparent = context.clock.now(), tracing.outgoing(written)
        delivery = await context.webhooks.send(url, op_id=op.op_id, body=payload, traceparent=traceparent)
        tracing.webhook(context.tracing, written, delivery, start=start, end=context.clock.now())
        return written, delivery

    written, delivery = await context.gate.effect(op.pool, send)
    ok = delivery.outcome in {"tracked", "untracked"}
    context.metrics.webhook_call(ok, op.pool, self_healing=op.failed_node_id is not None)
    _tell(written, delivery, url)
    if ok:
        return written, delivery
    # A receiver that was certainly not reached, or that refused, has made nothing by this attempt.
    nothing_new = not delivery.arrived or delivery.outcome == "refused"
    planned = _next_attempt(context, written, delivery)
    written = await context.alter(
        written,
        may_exist=op.may_exist if nothing_new else True,
        error=error(delivery.code, delivery.sentence),
        next_attempt_at=context.clock.now() + timedelta(seconds=planned),
    )
    if delivery.outcome == "superseded":
        context.on_superseded(delivery.seen_epoch)
    return written, delivery


def _tell(op: OperationRecord, delivery: Delivery, url: str) -> None:
    """One line for what came of the attempt: the log is where an operator looks for webhook calls."""
    ok = delivery.outcome in {"tracked", "untracked"}
    log.log(
        logging.INFO if ok else logging.WARNING,
        "ResourceManager scaling webhook %s, attempt %d: %s",
        _public(url),
        op.attempts,
        f"answered {delivery.status}, {delivery.outcome}" if ok else f"{delivery.code}: {delivery.sentence}",
        extra={"action": "webhook", "op_id": op.op_id, "pool": op.pool, "outcome": delivery.outcome},
    )


def _public(url: str) -> str:
    """The URL without what in it may be a secret: login and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no usable URL)"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _next_attempt(context: Context, op: OperationRecord, delivery: Delivery) -> float:
    if delivery.outcome == "superseded":
        return _SUPERSEDED_PAUSE
    wait = full_jitter(op.attempts, random=context.random)
    return max(wait, delivery.retry_after or 0.0)


async def follow(context: Context, op: OperationRecord) -> tuple[OperationRecord, JobRecord | None]:
    """Read the job's record and carry its stage, its times and its machine into the operation."""
    job = await context.jobs.get(op.op_id)
    if job is None or job.node_id != op.node_id or job.action != op.action:
        return op, None
    changes: dict[str, object] = {"stage": job.progress.stage[:200], "stages": stages.from_job(op, job)}
    if job.machine is not None:
        changes["machine"] = job.machine
    known = {stage.name: stage.ended_at for stage in op.stages}
    if "webhook" in known and "queue" not in known:
        context.metrics.job_accepted(job.created_at, known["webhook"])
    return await context.alter(op, **changes), job


def unfinished(job: JobRecord | None) -> bool:
    """Whether there may still come something of the job."""
    return job is None or job.state not in FINISHED
