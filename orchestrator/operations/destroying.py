"""The steps of a destroy operation: drain, wait for the end, tear down, forget."""

from __future__ import annotations

import logging
import math
from datetime import datetime, timedelta

from orchestrator.fleet.lifecycle import advance as advance_node
from orchestrator.operations import asking
from orchestrator.operations.backoff import full_jitter
from orchestrator.operations.context import POLL_SECONDS, Context, error
from orchestrator.operations.issuing import DRAIN_SLACK_SECONDS, Issuing
from orchestrator.operations.management import Reply
from secbeat import ids
from secbeat.clock import wire_time
from secbeat.errors import RefusedError, UnreachableError
from secbeat.wire.control import ResumeRequest, TerminateRequest
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.operations import OperationRecord

log = logging.getLogger("ResourceManager")

_LOOK_SECONDS = 1.0
_RETRY_CAP = 10.0


class Destroying:
    """Carries destroy operations out; level-triggered: each step looks at everything anew."""

    def __init__(self, context: Context, issuing: Issuing) -> None:
        self._context = context
        self._issuing = issuing
        self._told: dict[
            str, str | None
        ] = {}  # op_id -> boot_id that accepted; a restart tells again, which is harmless

    async def step(self, op: OperationRecord) -> float:
        """Do what can be done now; seconds until it is worth looking again without a wake-up."""
        if (closed := self._context.gate.closed(op.pool)) is not None:
            raise closed
        node = self._context.records.node(op.node_id)
        if node is not None and node.destroy_op_id != op.op_id:
            node = await self._issuing.mark_leaving(op)
        if op.state == "pending":
            return await self._tell(op, node)
        if op.state == "draining":
            return await self._await_end(op, node)
        if op.state == "drained":
            return await self._tear_down(op)
        return await self._follow(op)

    # -------------------------------------------------------------- drain

    async def _tell(self, op: OperationRecord, node: NodeRecord | None) -> float:
        """Have the node drain, until it accepts, is gone, or its time is over."""
        context = self._context
        if node is None or node.registered_at is None or node.state in {"failed", "terminating"}:
            await self._drained(op)  # nobody there who could drain
            return 0.0
        if op.drain_deadline is None:
            op = await context.alter(op, drain_deadline=self._grace_end(op))
        if (wait := asking.until_next_attempt(context, op)) > 0:
            return wait
        reply = await self._terminate(op, node)
        if reply.outcome == "accepted":
            context.metrics.node_terminated(op.pool)
            grace = self._grace_end(op, reply)
            await context.advance(op, "draining", drain_deadline=grace, error=None, calls=op.calls + 1)
            return 0.0
        if await self._has_ended(node) or self._overdue(op):
            await self._drained(op, error("TERMINATE_FAILED", reply.sentence))
            return 0.0
        wait = full_jitter(op.attempts + 1, random=context.random, cap=_RETRY_CAP)
        await context.alter(
            op,
            attempts=op.attempts + 1,
            calls=op.calls + 1,
            next_attempt_at=context.clock.now() + timedelta(seconds=wait),
            error=error("TERMINATE_FAILED", reply.sentence),
        )
        return wait

    async def _terminate(self, op: OperationRecord, node: NodeRecord) -> Reply:
        context = self._context
        found = context.records.registry.get(node.node_id)
        boot_id = (found.boot_id if found is not None else None) or node.boot_id
        grace = math.ceil(context.policy(op.pool).drain_deadline_seconds)

        async def call(epoch: int) -> Reply:
            ours = {} if node.legacy else {"node_id": node.node_id, "boot_id": boot_id, "epoch": epoch}
            request = TerminateRequest(
                reason=op.reason, timestamp=wire_time(context.clock.now()), grace_period_seconds=grace, **ours
            )
            return await context.nodes.terminate(context.target(node), request)

        reply = await context.gate.effect(op.pool, call)
        if reply.outcome == "accepted":
            self._told[op.op_id] = boot_id
        return reply

    def _grace_end(self, op: OperationRecord, reply: Reply | None = None) -> datetime:
        """When the node is done by its own deadline: the grace that it granted, else the one that we ask for."""
        grace = self._context.policy(op.pool).drain_deadline_seconds
        if reply is not None and reply.grace_seconds is not None:
            grace = reply.grace_seconds
        return self._context.clock.now() + timedelta(seconds=grace)

    async def _await_end(self, op: OperationRecord, node: NodeRecord | None) -> float:
        if node is None or await self._has_ended(node):
            await self._drained(op)
            return 0.0
        if self._overdue(op):
            await self._drained(op, error("DRAIN_OVERDUE", "the node was still there after its deadline and 30 s"))
            return 0.0
        found = self._context.records.registry.get(node.node_id)
        boot_id = (found.boot_id if found is not None else None) or node.boot_id
        leaving = found is not None and found.reported_status in {"Draining", "Terminating"}
        if not leaving and self._told.get(op.op_id, "") != boot_id:
            # Told before our restart, or a process that came up meanwhile: telling twice is the same as telling once.
            await self._terminate(op, node)
        return _LOOK_SECONDS

    async def _has_ended(self, node: NodeRecord) -> bool:
        """Its final heartbeat was seen, or nothing is heard any more; and its management port is closed."""
        found = self._context.records.registry.get(node.node_id)
        final = found is not None and found.reported_status == "Terminating"
        if not (final or self._context.silent(node.node_id)):
            return False
        return not await self._context.nodes.listens(self._context.target(node))

    def _overdue(self, op: OperationRecord) -> bool:
        if op.drain_deadline is None:
            return False
        return self._context.clock.now() >= op.drain_deadline + timedelta(seconds=DRAIN_SLACK_SECONDS)

    async def _drained(self, op: OperationRecord, trouble: object = None) -> None:
        context, now = self._context, self._context.clock.now()
        self._told.pop(op.op_id, None)
        await context.surely(
            lambda: context.records.change_node(op.node_id, lambda one: advance_node(one, "terminating", now=now))
        )
        await context.advance(op, "drained", error=trouble)

    async def undrain(self, op: OperationRecord, *, by: str) -> OperationRecord:
        """Cancel a drain whose node still listens.

        Raises:
            RefusedError: DRAIN_TOO_LATE.
            UnreachableError: NODE_UNREACHABLE; the drain goes on.
            GateClosed: nothing may change now.
        """
        context = self._context
        node = context.records.node(op.node_id)
        if op.state not in {"pending", "draining"} or node is None or node.state != "draining":
            raise RefusedError("DRAIN_TOO_LATE", why=f"the operation is {op.state}: the node no longer listens")
        found = context.records.registry.get(op.node_id)
        boot_id = (found.boot_id if found is not None else None) or node.boot_id

        async def call(epoch: int) -> Reply:
            request = ResumeRequest(reason=f"undrain by {by}"[:500], node_id=node.node_id, boot_id=boot_id, epoch=epoch)
            return await context.nodes.resume(context.target(node), request)

        # An attempt to tell it may have arrived though it never answered, so it is resumed in either state.
        told = op.state == "draining" or op.attempts > 0
        reply = await context.gate.effect(op.pool, call) if told else Reply("accepted")
        if reply.outcome == "refused":
            raise RefusedError("DRAIN_TOO_LATE", why=reply.sentence)
        if reply.outcome == "unreachable":
            raise UnreachableError("NODE_UNREACHABLE", why=reply.sentence)
        now = context.clock.now()
        record = await context.advance(op, "cancelled", error=None)
        await context.surely(
            lambda: context.records.change_node(
                op.node_id, lambda one: advance_node(one, "active", now=now, destroy_op_id=None)
            )
        )
        context.on_change(op.pool)
        return record

    # -------------------------------------------------------------- tear down

    async def _tear_down(self, op: OperationRecord) -> float:
        context = self._context
        url = context.settings().deprovisioning_webhook_url
        name = op.machine.name if op.machine is not None else ids.machine_name(op.pool, op.node_id)
        if op.by_hand:
            await self._finished(op)
        elif url is None:
            sentence = f"the receiver of webhooks cannot destroy: remove machine {name} (node {op.node_id}) yourself"
            await context.advance(op, "needs_operator", error=error("CANNOT_DESTROY", sentence))
            await self._forget(op)
        elif (wait := asking.until_next_attempt(context, op)) > 0:
            return wait
        elif context.clock.now() >= op.deadline:
            last = op.error.message if op.error is not None else "no answer"
            await context.advance(op, "failed", error=error("TEARDOWN_OVERDUE", f"not accepted in time: {last}"))
        else:
            op, delivery = await asking.ask(context, op, url)
            if delivery.outcome == "refused":
                sentence = f"{delivery.sentence}; machine {name} may still exist"
                await context.advance(op, "needs_operator", error=error(delivery.code, sentence))
            elif delivery.outcome == "tracked":
                await context.advance(op, "tearing_down", tracked=True, error=None)
            elif delivery.outcome == "untracked":
                op = await context.advance(op, "tearing_down", tracked=False, error=None)
                await self._finished(op)
        return 0.0

    async def _follow(self, op: OperationRecord) -> float:
        context = self._context
        if op.tracked is False:  # a bare 2xx; a crash came before the end was written
            await self._finished(op)
            return 0.0
        op, job = await asking.follow(context, op)
        if job is not None and job.state == "succeeded":
            await self._finished(op)
            return 0.0
        if job is not None and job.state in {"failed", "cancelled"}:
            trouble = job.error
            sentence = trouble.message if trouble is not None else f"the job ended as {job.state}"
            code = trouble.code if trouble is not None else "JOB_FAILED"
            await self._failed(op, code, sentence, trouble.task if trouble is not None else None)
            return 0.0
        if context.clock.now() >= op.deadline:
            await self._failed(op, "TEARDOWN_OVERDUE", "the job did not end in time", None)
            return 0.0
        return POLL_SECONDS

    async def _failed(self, op: OperationRecord, code: str, sentence: str, task: str | None) -> None:
        """The node's record stays: a further operation tries again (see ``repair``), or a person does."""
        await self._context.advance(op, "failed", error=error(code, sentence, task))

    async def _finished(self, op: OperationRecord) -> None:
        """The machine is gone: the node's record first, so that no ended operation leaves one behind."""
        await self._forget(op)
        await self._context.advance(op, "succeeded", error=None, stage="")

    async def _forget(self, op: OperationRecord) -> None:
        context = self._context
        if context.records.node(op.node_id) is None:
            return
        await context.surely(lambda: context.records.drop_node(op.node_id))
        context.metrics.node_left()
        name = ids.machine_name(op.pool, op.node_id)
        context.events.publish(
            "node.gone", f"Node {name} of pool {op.pool} is gone", pool=op.pool, node_id=op.node_id, op_id=op.op_id
        )
