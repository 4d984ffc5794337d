"""What a crash can leave between two writes, mended; what ended long ago, forgotten. Level-triggered, repeatable."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from orchestrator.fleet.lifecycle import advance as advance_node
from orchestrator.operations.context import Context
from orchestrator.operations.executor import Executor
from orchestrator.reconcile.gate import GateClosed
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.operations import OperationRecord

log = logging.getLogger("ResourceManager")

KEEP_FOR = timedelta(hours=24)
KEEP_NEWEST = 500
_RETRY_BASE = 30.0
_RETRY_CAP = 3600.0
_MAX_PER_SWEEP = 50


class Repair:
    """Sweeps over the records."""

    def __init__(self, context: Context, executor: Executor) -> None:
        self._context = context
        self._executor = executor

    async def sweep(self) -> None:
        """One pass.

        Raises:
            Unavailable: the store does not answer; the next pass goes on.
        """
        records = self._context.records
        for op in records.open_operations():
            self._executor.start(op.op_id)
        for op in [op for op in records.operations.values() if op.action == "create" and op.state == "failed"]:
            await self._executor.issuing.after_failed_create(op)
        for node_id in [node.node_id for node in records.registry.nodes() if _suspicious(node.state, node.leaving)]:
            if (node := records.node(node_id)) is not None:
                await self._mend(node)
        await self._prune()

    async def _mend(self, node: NodeRecord) -> None:
        if node.destroy_op_id is not None:
            await self._mend_leaving(node)
        elif node.op_id is not None and node.op_id not in self._context.records.operations:
            # Its create operation is lost (a damaged store): whatever there is of the machine must not stay.
            await self._destroy(node, "BOOT_FAILED")

    async def _mend_leaving(self, node: NodeRecord) -> None:
        context, now = self._context, self._context.clock.now()
        op = context.records.operations.get(node.destroy_op_id or "")
        if op is None:
            await self._destroy(node, "UNFINISHED_TEARDOWN")
        elif op.state == "succeeded" or (op.state == "needs_operator" and _cannot_destroy(op)):
            await context.records.drop_node(node.node_id)
        elif op.state == "cancelled" and node.state == "draining":
            await context.records.change_node(
                node.node_id, lambda one: advance_node(one, "active", now=now, destroy_op_id=None)
            )
        elif op.state == "failed" and now >= self._retry_at(node.node_id, op):
            await self._destroy(node, op.reason)

    def _retry_at(self, node_id: str, last: OperationRecord) -> datetime:
        """When a teardown that failed is tried again: 30 s, doubled with each failure, an hour at most."""
        failures = sum(
            op.node_id == node_id and op.action == "destroy" and op.state == "failed"
            for op in self._context.records.operations.values()
        )
        seconds = min(_RETRY_BASE * 2.0 ** min(failures - 1, 12), _RETRY_CAP)
        return (last.ended_at or last.updated_at) + timedelta(seconds=seconds)

    async def _destroy(self, node: NodeRecord, reason: str) -> None:
        try:
            await self._executor.issuing.destroy(node, reason=reason, by="autoscaler")
        except GateClosed:
            return  # the next sweep

    async def _prune(self) -> None:
        """Ended operations stay a day, and the newest 500 longer; those that a node still refers to always."""
        records = self._context.records
        horizon = self._context.clock.now() - KEEP_FOR
        ended = sorted((op for op in records.operations.values() if op.ended), key=lambda op: op.op_id)
        old = [op for op in ended[: max(len(ended) - KEEP_NEWEST, 0)] if (op.ended_at or op.updated_at) < horizon]
        for op in old[:_MAX_PER_SWEEP]:
            if records.node(op.node_id) is None or op.state == "succeeded":
                await records.drop_operation(op.op_id)
                await self._context.jobs.forget(op.op_id)


def _cannot_destroy(op: OperationRecord) -> bool:
    return op.error is not None and op.error.code == "CANNOT_DESTROY"


def _suspicious(state: str, leaving: bool) -> bool:
    return leaving or state in {"requested", "provisioning", "booting", "joining"}
