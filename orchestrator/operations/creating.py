"""The steps of a create operation: ask, follow the job, wait for the node."""

from __future__ import annotations

from orchestrator.fleet.lifecycle import advance as advance_node
from orchestrator.operations import asking, breaker, stages
from orchestrator.operations.context import POLL_SECONDS, Context, error
from orchestrator.operations.issuing import Issuing
from secbeat.wire.jobs import JobRecord, Machine
from secbeat.wire.nodes import NodeRecord, NodeState
from secbeat.wire.operations import OperationError, OperationRecord

_ON_ITS_WAY: tuple[NodeState, ...] = ("requested", "provisioning", "booting")
_SERVING: frozenset[NodeState] = frozenset({"active", "warm"})


class Creating:
    """Carries create operations out; level-triggered: each step looks at everything anew."""

    def __init__(self, context: Context, issuing: Issuing) -> None:
        self._context = context
        self._issuing = issuing

    async def step(self, op: OperationRecord) -> float:
        """Do what can be done now; seconds until it is worth looking again without a wake-up."""
        context = self._context
        if (closed := context.gate.closed(op.pool)) is not None:
            raise closed
        node = await self._issuing.ensure_node(op)
        if node is None or node.destroy_op_id is not None:
            await self._failed(op, error("NODE_WITHDRAWN", "the node was told to go before it was ready"), boot=False)
            return 0.0
        if node.state in _SERVING and op.state != "pending":
            return await self._serving(op)
        if context.records.pool(op.pool).retired and op.tracked is not True:
            # Nobody has begun it, or nobody can say when it ends; whoever still joins is drained like the others.
            await self._failed(op, error("NODE_WITHDRAWN", "the pool was retired before it was there"), boot=False)
            return 0.0
        if context.clock.now() >= op.deadline:
            if node.state in _SERVING:
                await self._succeeded(op)
            else:
                await self._overdue(op)
            return 0.0
        if op.state == "pending":
            return await self._ask(op)
        return await self._follow(op)

    # -------------------------------------------------------------- steps

    async def _ask(self, op: OperationRecord) -> float:
        context = self._context
        if (wait := asking.until_next_attempt(context, op)) > 0:
            return min(wait, self._left(op))
        op, delivery = await asking.ask(context, op, context.settings().provisioning_webhook_url)
        if delivery.outcome == "refused":
            await self._failed(op, error(delivery.code, delivery.sentence))
        elif delivery.outcome == "tracked":
            await context.advance(op, "accepted", tracked=True, error=None)
            await self._node_reached(op, "provisioning")
        elif delivery.outcome == "untracked":
            # A bare 2xx is all that this receiver will ever say: from here on only a join or the deadline ends it.
            await context.advance(op, "booting", tracked=False, error=None)
            await self._node_reached(op, "booting")
        return 0.0

    async def _follow(self, op: OperationRecord) -> float:
        if op.tracked is not True:
            return self._left(op)
        op, job = await asking.follow(self._context, op)
        if await self._job_failed(op, job):
            return 0.0
        if job is not None and job.state == "succeeded" and op.state == "accepted":
            op = await self._context.advance(op, "booting", machine=job.machine)
            await self._node_reached(op, "booting", job.machine)
            return 0.0
        if job is not None and job.machine is not None:
            await self._node_reached(op, "booting", job.machine)
        return min(POLL_SECONDS, self._left(op))

    async def _serving(self, op: OperationRecord) -> float:
        """The node is active; its address is the provisioner's to tell, so a tracked job is awaited."""
        if op.tracked is True:
            op, job = await asking.follow(self._context, op)
            if await self._job_failed(op, job):
                return 0.0
            if asking.unfinished(job) and self._context.clock.now() < op.deadline:
                return min(POLL_SECONDS, self._left(op))
        await self._succeeded(op)
        return 0.0

    async def _job_failed(self, op: OperationRecord, job: JobRecord | None) -> bool:
        if job is None or job.state not in {"failed", "cancelled"}:
            return False
        trouble = _trouble(job)
        started = job.started_at is not None or job.state == "failed"
        await self._failed(op, trouble, boot=job.state == "failed", may_exist=started)
        return True

    # -------------------------------------------------------------- ends

    async def _succeeded(self, op: OperationRecord) -> None:
        context = self._context
        if op.machine is not None:
            await self._node_reached(op, "booting", op.machine)
        node = context.records.node(op.node_id)
        known = op.stages if node is None else stages.from_node(op, node)
        await context.advance(op, "succeeded", error=None, stage="", stages=known)
        await context.surely(lambda: context.records.change_pool(op.pool, breaker.booted))

    async def _overdue(self, op: OperationRecord) -> None:
        seconds = (op.deadline - op.created_at).total_seconds()
        if op.state == "pending":
            last = f" ({op.error.code}: {op.error.message})" if op.error is not None else ""
            sentence = f"the receiver did not accept the request within {seconds:g} s{last}"
            await self._failed(op, error("WEBHOOK_UNREACHABLE", sentence), boot=False)
        else:
            await self._failed(op, error("BOOT_DEADLINE", f"the node did not join within {seconds:g} s"))

    async def _failed(
        self, op: OperationRecord, trouble: OperationError, *, boot: bool = True, may_exist: bool | None = None
    ) -> None:
        """End the operation; count the boot for the breaker; see to what may have been made.

        ``boot`` False: nothing was tried that says anything about this pool's boots.
        """
        context = self._context
        changes: dict[str, object] = {} if may_exist is None else {"may_exist": may_exist}
        op = await context.advance(op, "failed", error=trouble, **changes)
        if boot and not op.by_hand:
            await self._count(op, trouble)
        await self._issuing.after_failed_create(op)

    async def _count(self, op: OperationRecord, trouble: OperationError) -> None:
        context = self._context
        settings, now = context.settings(), context.clock.now()
        before = context.records.pool(op.pool).breaker.open_since
        record = await context.surely(
            lambda: context.records.change_pool(
                op.pool,
                lambda pool: breaker.failed(
                    pool,
                    now=now,
                    limit=settings.breaker_failures,
                    retry_seconds=settings.boot_retry_seconds,
                    reset_seconds=settings.breaker_reset_seconds,
                    error=trouble,
                    op_id=op.op_id,
                ),
            )
        )
        if before is None and record.breaker.open_since is not None:
            context.events.publish(
                "breaker.opened",
                f"Pool {op.pool} creates no more nodes: {record.breaker.failures} boots in a row never joined. "
                f"Last: {trouble.message}",
                pool=op.pool,
                op_id=op.op_id,
            )

    async def _node_reached(self, op: OperationRecord, state: NodeState, machine: Machine | None = None) -> None:
        """Bring the node's record up to ``state`` if it is still behind it; take in where its machine is."""
        now = self._context.clock.now()

        def change(node: NodeRecord) -> NodeRecord:
            changes = {} if machine is None else {"machine": machine}
            behind = node.state in _ON_ITS_WAY and _ON_ITS_WAY.index(node.state) < _ON_ITS_WAY.index(state)
            return advance_node(node, state if behind else node.state, now=now, **changes)

        await self._context.surely(lambda: self._context.records.change_node(op.node_id, change))

    def _left(self, op: OperationRecord) -> float:
        return max((op.deadline - self._context.clock.now()).total_seconds(), 0.0)


def _trouble(job: JobRecord) -> OperationError:
    if job.error is not None:
        return error(job.error.code, job.error.message, job.error.task)
    return error("JOB_CANCELLED" if job.state == "cancelled" else "JOB_FAILED", f"the job ended as {job.state}")
