"""The webhook's body: the guide's keys, and ours beside them."""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address

from orchestrator.operations import tracing
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.operations import OperationRecord
from secbeat.wire.webhook import FleetMetrics, Operation, WebhookBody


def encode(
    op: OperationRecord,
    *,
    epoch: int,
    now: datetime,
    fleet: FleetMetrics,
    failed: NodeRecord | None,
    callback_url: str | None,
) -> bytes:
    """The body of one attempt; only time and epoch differ between attempts.

    Self-healing carries the original's two keys about the dead node in place of ``fleet_metrics``.
    """
    healing = op.failed_node_id is not None
    body = WebhookBody(
        reason=op.reason,
        timestamp=now,
        fleet_metrics=None if healing else fleet,
        failed_node_id=op.failed_node_id,
        failed_node_ip=ip_address(failed.public_ip) if failed is not None else None,
        operation=Operation(
            cluster_id=op.cluster_id,
            op_id=op.op_id,
            action=op.action,
            pool=op.pool,
            node_id=op.node_id,
            epoch=epoch,
            blueprint=op.blueprint,
            issued_at=op.created_at,
            deadline=op.deadline,
            callback_url=callback_url,
            traceparent=tracing.outgoing(op),
        ),
    )
    return body.model_dump_json(exclude_none=True).encode()
