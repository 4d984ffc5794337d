"""New operations: the intent is on disk, then the node's record, then somebody acts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from orchestrator.fleet.lifecycle import advance as advance_node
from orchestrator.operations.context import Context
from orchestrator.reconcile.gate import GateClosed
from secbeat import ids
from secbeat.wire.nodes import NodeRecord, NodeState
from secbeat.wire.operations import OperationRecord
from secbeat.wire.webhook import Action

log = logging.getLogger("ResourceManager")

_DRAINABLE: frozenset[NodeState] = frozenset({"joining", "active", "warm", "draining"})
_NOT_THERE: frozenset[NodeState] = frozenset({"requested", "provisioning", "booting", "quarantined"})
_TEARDOWN_SECONDS = 900.0
DRAIN_SLACK_SECONDS = 30.0
"""The orchestrator waits so much longer than the node's own deadline before it tears down anyway."""


class Issuing:
    """Writes new operations; ``start`` is told each op_id that somebody must now carry out."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = asyncio.Lock()
        self.start: Callable[[str], None] = lambda _op_id: None

    def room(self, pool: str, action: Action) -> int:
        """How many more operations of this kind may be open. Each kind has its own count: no drain blocks a boot."""
        settings = self._context.settings()
        opened = [op for op in self._context.records.open_operations() if op.action == action]
        in_pool = sum(op.pool == pool for op in opened)
        return max(min(settings.max_open_operations - len(opened), settings.max_open_operations_per_pool - in_pool), 0)

    # -------------------------------------------------------------- create

    async def create(
        self, pool: str, *, reason: str, by: str, failed_node_id: str | None = None, by_hand: bool = False
    ) -> OperationRecord:
        """Intend one more node.

        Raises:
            GateClosed: nothing may change now.
            Unavailable: the intent could not be written; nothing came of it.
        """
        context = self._context
        policy = context.policy(pool)

        async def write(epoch: int) -> OperationRecord:
            now = context.clock.now()
            return await context.records.put_operation(
                OperationRecord(
                    op_id=ids.new_op_id(),
                    cluster_id=context.records.cluster_id,
                    action="create",
                    pool=pool,
                    node_id=ids.new_node_id(),
                    epoch=epoch,
                    blueprint=policy.blueprint,
                    reason=reason,
                    requested_by=by,
                    state="booting" if by_hand else "pending",
                    created_at=now,
                    updated_at=now,
                    deadline=now + timedelta(seconds=policy.boot_deadline_seconds),
                    failed_node_id=failed_node_id,
                    by_hand=by_hand,
                    traceparent=context.tracing.begin(),
                )
            )

        async with self._lock:
            op = await context.gate.effect(pool, write)
            context.tell(op)
            self.start(op.op_id)
            await self.ensure_node(op)
        return op

    async def ensure_node(self, op: OperationRecord) -> NodeRecord | None:
        """The node that a create operation makes; written now if a crash came between the two records.

        None: the node was destroyed meanwhile.
        """
        records, now = self._context.records, self._context.clock.now()
        if (node := records.node(op.node_id)) is not None:
            return node
        if any(one.action == "destroy" and one.node_id == op.node_id for one in records.operations.values()):
            return None
        return await records.put_node(
            NodeRecord(
                node_id=op.node_id,
                pool=op.pool,
                state="requested",
                state_since=now,
                created_at=op.created_at,
                op_id=op.op_id,
                by_hand=op.by_hand,
            )
        )

    async def after_failed_create(self, op: OperationRecord) -> None:
        """Destroy what a failed create may have made, forget the node if there can be nothing. Repeatable."""
        records, now = self._context.records, self._context.clock.now()
        node = records.node(op.node_id)
        if node is None or node.destroy_op_id is not None:
            return
        if not (op.may_exist or op.machine is not None or node.registered_at is not None):
            await self._context.surely(lambda: records.drop_node(op.node_id))
            return
        if node.state in _NOT_THERE:
            node = await self._context.surely(
                lambda: records.change_node(op.node_id, lambda one: advance_node(one, "failed", now=now))
            )
        if node is None:
            return
        try:
            await self.destroy(node, reason="BOOT_FAILED", by="autoscaler")
        except GateClosed as closed:
            log.info("The machine of %s is destroyed later: %s", node.node_id, closed.sentence)

    # -------------------------------------------------------------- destroy

    async def destroy(self, node: NodeRecord, *, reason: str, by: str, leaving: bool = False) -> OperationRecord:
        """Intend that ``node`` drains and its machine goes; an open operation to that end is returned as it is.

        Args:
            leaving: the node drains already, by its own word; it is not told to.

        Raises:
            GateClosed: nothing may change now.
            Unavailable: the intent could not be written; nothing came of it.
        """
        async with self._lock:
            known = self.open_destroy(node.node_id)
            return known if known is not None else await self._destroy(node, reason=reason, by=by, leaving=leaving)

    def open_destroy(self, node_id: str) -> OperationRecord | None:
        """The destroy operation of a node that has not ended, if there is one."""
        return next(
            (
                op
                for op in self._context.records.operations.values()
                if op.node_id == node_id and op.action == "destroy" and not op.ended
            ),
            None,
        )

    async def _destroy(self, node: NodeRecord, *, reason: str, by: str, leaving: bool) -> OperationRecord:
        context = self._context
        policy = context.policy(node.pool)
        grace = timedelta(seconds=policy.drain_deadline_seconds)

        async def write(epoch: int) -> OperationRecord:
            now = context.clock.now()
            created = None if node.op_id is None else context.records.operations.get(node.op_id)
            return await context.records.put_operation(
                OperationRecord(
                    op_id=ids.new_op_id(),
                    cluster_id=context.records.cluster_id,
                    action="destroy",
                    pool=node.pool,
                    node_id=node.node_id,
                    epoch=epoch,
                    blueprint=policy.blueprint if created is None else created.blueprint,
                    reason=reason,
                    requested_by=by,
                    state="draining" if leaving else "pending",
                    created_at=now,
                    updated_at=now,
                    deadline=now + grace + timedelta(seconds=DRAIN_SLACK_SECONDS + _TEARDOWN_SECONDS),
                    drain_deadline=now + grace if leaving else None,
                    machine=node.machine,
                    by_hand=node.by_hand or node.op_id is None,
                    may_exist=True,
                    traceparent=context.tracing.begin(),
                )
            )

        op = await context.gate.effect(node.pool, write)
        context.tell(op)
        self.start(op.op_id)
        await self.mark_leaving(op)
        return op

    async def mark_leaving(self, op: OperationRecord) -> NodeRecord | None:
        """The node's record names its destroy operation, and the node counts no longer as capacity. Repeatable."""
        now = self._context.clock.now()

        def change(node: NodeRecord) -> NodeRecord:
            state = node.state
            if state in _DRAINABLE:
                state = "draining"
            elif state in _NOT_THERE:
                state = "failed" if state != "quarantined" else "terminating"
            return advance_node(node, state, now=now, destroy_op_id=op.op_id)

        return await self._context.records.change_node(op.node_id, change)
