"""An operation's spans: its own, one for each stage, one for each webhook. Nothing without a trace context."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.operations.webhook import Delivery
from secbeat.telemetry.tracing import Span, Tracing, Value, beneath, id_of
from secbeat.wire.operations import OperationRecord

_NAMES = {"create": "scale up", "destroy": "scale down"}


def outgoing(op: OperationRecord) -> str | None:
    """The context that attempt ``op.attempts`` of the webhook travels with."""
    return None if op.traceparent is None else beneath(op.traceparent, op.op_id, "webhook", op.action, op.attempts)


def webhook(tracing: Tracing, op: OperationRecord, delivery: Delivery, *, start: datetime, end: datetime) -> None:
    """One attempt has ended."""
    if op.traceparent is None or (own := outgoing(op)) is None:
        return
    attributes: dict[str, Value] = {
        "http.request.method": "POST",
        "secbeat.webhook.attempt": op.attempts,
        "secbeat.webhook.outcome": delivery.outcome,
    }
    if delivery.status is not None:
        attributes["http.response.status_code"] = delivery.status
    failed = delivery.outcome not in {"tracked", "untracked"}
    tracing.record(
        Span(
            traceparent=own,
            parent_id=id_of(op.traceparent),
            name=f"webhook {op.action}",
            kind="client",
            start=start,
            end=end,
            attributes=attributes,
            error=delivery.code if failed else None,
        )
    )


def ended(tracing: Tracing, op: OperationRecord) -> None:
    """The operation has ended: the span that began with the decision, and its stages."""
    if op.traceparent is None or op.ended_at is None:
        return
    root = id_of(op.traceparent)
    error = op.error.code if op.error is not None else op.state
    failed = op.state in {"failed", "needs_operator"}
    tracing.record(
        Span(
            traceparent=op.traceparent,
            parent_id=None,
            name=_NAMES[op.action],
            start=op.created_at,
            end=op.ended_at,
            attributes={
                "secbeat.op_id": op.op_id,
                "secbeat.pool": op.pool,
                "secbeat.node_id": op.node_id,
                "secbeat.decision.code": op.reason,
                "secbeat.requested_by": op.requested_by,
                "secbeat.operation.state": op.state,
            },
            error=error if failed else None,
        )
    )
    start = op.created_at
    for index, stage in enumerate(op.stages):
        end = start + timedelta(seconds=stage.seconds)
        broken = failed and index == len(op.stages) - 1
        tracing.record(
            Span(
                traceparent=beneath(op.traceparent, op.op_id, "stage", stage.name),
                parent_id=root,
                name=f"stage {stage.name}",
                start=start,
                end=end,
                attributes={"secbeat.stage": stage.name},
                error=error if broken else None,
            )
        )
        start = end
