"""The action executor: one task per open operation, so that a slow or failing receiver delays only its own."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

from orchestrator.operations.context import Context
from orchestrator.operations.creating import Creating
from orchestrator.operations.destroying import Destroying
from orchestrator.operations.issuing import Issuing
from orchestrator.operations.waiting import wait
from orchestrator.reconcile.gate import GateClosed
from secbeat.store import NotLeader, Unavailable
from secbeat.telemetry.context import within
from secbeat.wire.operations import OperationRecord

log = logging.getLogger("ResourceManager")

_CLOSED_SECONDS = 1.0
_TROUBLE_SECONDS = 5.0
_MAX_SECONDS = 30.0
"""Level-triggered: whatever wake-up got lost, an operation is looked at again after this."""


class Executor:
    """Carries operations out. Wakes on hints, joins and timers; after a crash ``start`` is all that it takes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.issuing = Issuing(context)
        self.issuing.start = self.start
        self._creating = Creating(context, self.issuing)
        self._destroying = Destroying(context, self.issuing)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._steps: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stopped = True

    def open(self) -> None:
        """Begin: every open operation gets its task."""
        self._stopped = False
        for op in self._context.records.open_operations():
            self.start(op.op_id)

    def start(self, op_id: str) -> None:
        """Have ``op_id`` carried out, unless it is already."""
        if not self._stopped and op_id not in self._tasks:
            self._tasks[op_id] = asyncio.create_task(self._carry_out(op_id), name=f"operation {op_id}")
            if (op := self._context.records.operations.get(op_id)) is not None:
                self.wake_node(op.node_id)  # another operation on the same node has to know

    def wake(self, op_id: str) -> None:
        """Something about this operation may have changed."""
        if op_id in self._tasks:
            self._wake[op_id].set()

    def wake_node(self, node_id: str) -> None:
        """Something about this node may have changed."""
        for op in self._context.records.open_operations():
            if op.node_id == node_id:
                self.wake(op.op_id)

    async def close(self) -> None:
        """End all tasks where they are; the records say how to go on."""
        self._stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def undrain(self, op: OperationRecord, *, by: str) -> OperationRecord:
        """See :meth:`Destroying.undrain`; not in the middle of a step of the same operation."""
        async with self._steps[op.op_id]:
            current = self._context.records.operations.get(op.op_id, op)
            record = await self._destroying.undrain(current, by=by)
        self.wake(op.op_id)
        return record

    async def _carry_out(self, op_id: str) -> None:
        try:
            while True:
                async with self._steps[op_id]:
                    op = self._context.records.operations.get(op_id)
                    if op is None or op.ended:
                        return
                    seconds = await self._step(op)
                    unchanged = self._context.records.operations.get(op_id) == op
                if seconds > 0 or unchanged:
                    await wait(self._wake[op_id], self._context.clock, min(max(seconds, 0.1), _MAX_SECONDS))
        finally:
            for table in (self._tasks, self._wake, self._steps):
                table.pop(op_id, None)

    async def _step(self, op: OperationRecord) -> float:
        """One step; whatever goes wrong in it concerns this operation alone."""
        with within(op.traceparent):
            return await self._guarded_step(op)

    async def _guarded_step(self, op: OperationRecord) -> float:
        try:
            steps = self._creating if op.action == "create" else self._destroying
            return await steps.step(op)
        except GateClosed:
            return _CLOSED_SECONDS
        except NotLeader:
            return _TROUBLE_SECONDS
        except Unavailable as error:
            self._context.metrics.store_error("state")
            log.warning("Operation %s waits for the store: %s", op.op_id, error, extra={"action": "store_away"})
            return _CLOSED_SECONDS
        except Exception:
            log.exception("Operation %s: a step failed by a defect; it is tried again", op.op_id)
            return _TROUBLE_SECONDS
