"""What is asked about operations and jobs; implements ``orchestrator.control.OperationControl``."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.control import Missing
from orchestrator.operations.context import Context
from orchestrator.operations.executor import Executor
from secbeat.errors import RefusedError, UnreachableError
from secbeat.store import Unavailable
from secbeat.wire.jobs import FINISHED, JobRecord
from secbeat.wire.operations import OperationRecord


class OperationMixin:
    """Operations of a :class:`orchestrator.core.Core`."""

    context: Context
    executor: Executor

    def operations(self, pool: str | None = None, *, open_only: bool = False) -> Sequence[OperationRecord]:
        found = self.context.records.operations.values()
        return sorted(
            (op for op in found if pool in {None, op.pool} and not (open_only and op.ended)), key=lambda op: op.op_id
        )

    def operation(self, op_id: str) -> OperationRecord:
        op = self.context.records.operations.get(op_id)
        if op is None:
            raise Missing("NOT_FOUND", why=f"there is no operation {op_id[:64]!r}", fix="List them: secbeat operations")
        return op

    async def job_report(self, op_id: str, record: JobRecord) -> None:
        op = self.operation(op_id)
        if (record.op_id, record.node_id, record.action) != (op.op_id, op.node_id, op.action):
            raise RefusedError("JOB_MISMATCH", why="op_id, node_id or action are not those of the operation")
        self.context.gate.need_store()
        try:
            await self.context.jobs.report(record)
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None
        # Whoever reports a job knows op_ids, whatever its first answer looked like.
        if not op.ended and op.tracked is False:
            await self.context.alter(op, tracked=True)
        self.executor.wake(op_id)

    async def jobs(self) -> Sequence[JobRecord]:
        try:
            return await self.context.jobs.all()
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None

    async def job(self, op_id: str) -> JobRecord:
        try:
            record = await self.context.jobs.get(op_id)
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None
        if record is None:
            raise Missing("NOT_FOUND", why=f"there is no job {op_id[:64]!r}", fix="List them: secbeat jobs")
        return record

    async def cancel_job(self, op_id: str, *, by: str) -> JobRecord:
        record = await self.job(op_id)
        if record.state in FINISHED:
            raise RefusedError("JOB_ENDED", why=f"the job is {record.state}")
        self.context.gate.need_store()
        asked = await self.context.jobs.request_cancel(op_id, now=self.context.clock.now())
        self.context.events.publish(
            "job.cancel_requested",
            f"{by} asked to cancel the job that is to {record.action} node {record.node_id}",
            pool=record.pool,
            node_id=record.node_id,
            op_id=op_id,
        )
        return asked or record
