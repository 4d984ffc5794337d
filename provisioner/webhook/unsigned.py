"""Senders that know no op_id: an original orchestrator, or a person with curl.

They never say which machine they mean, never retry, and never ask for a teardown. So an operation is made up for each
request, what one request means is decided here (one scale-up at a time per pool, one replacement per failed node, the
same bytes once), and what was made for them is torn down by us (`farewell`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta

from provisioner.jobs.store import JobStore
from provisioner.webhook.intake import Intake, Taken
from secbeat import ids
from secbeat.clock import Clock
from secbeat.store import Bucket, Conflict, Unavailable
from secbeat.wire.jobs import FINISHED, JobRecord, MachineRecord
from secbeat.wire.webhook import UnsignedBody

log = logging.getLogger("provisioner.webhook")

# Keys in bucket ``jobs``: each holds the op_id that answers for it.
PREFIX = "unsigned."
_CLUSTER = PREFIX + "cluster"
_TEARDOWN_REASON = "UNSIGNED_TEARDOWN"
_TEARDOWN_AGAIN = timedelta(minutes=5)


class UnsignedIntake:
    """Translates their requests, and keeps the keys that make each of them happen once.

    ``on_given_up`` hears the address of each node that a sender has given up, whether or not it gets another one.
    """

    def __init__(
        self, *, intake: Intake, store: JobStore, bucket: Bucket, pool: str, blueprint: str, clock: Clock
    ) -> None:
        self._intake, self._store, self._bucket, self._clock = intake, store, bucket, clock
        self._pool, self._blueprint = pool, blueprint
        self._one_at_a_time = asyncio.Lock()
        self.on_given_up: Callable[[str], None] = lambda _address: None

    async def request(self, body: UnsignedBody, raw: bytes) -> Taken:
        """A scale-up or a replacement.

        Raises:
            Refused: 422, 429, 503 (which these senders do not retry).
        """
        if body.failed_node_ip is not None:
            self.on_given_up(str(body.failed_node_ip))
        # The slots are claimed before their jobs are written; within one process nobody may see the gap.
        async with self._one_at_a_time:
            return await self._request(body, "body." + hashlib.sha256(raw).hexdigest()[:40])

    async def _request(self, body: UnsignedBody, same_bytes: str) -> Taken:
        same = await self._answering(same_bytes)
        if same is not None:
            return Taken("known", same)
        slot = f"scaleup.{self._pool}" if body.failed_node_id is None else f"failed.{body.failed_node_id}"
        standing = await self._answering(slot)
        if standing is not None and (standing.state not in FINISHED or _answered(body, standing)):
            return Taken("known", standing)
        job = await self._made_up(body)
        winner = await self._claim(slot, job.op_id, standing.op_id if standing is not None else None)
        if winner is not None:
            return Taken("known", winner)
        try:
            taken = await self._intake.take(job)
        except BaseException:
            await self._release(slot)
            raise
        await self._remember(same_bytes, job.op_id)
        return taken

    async def _made_up(self, body: UnsignedBody) -> JobRecord:
        return JobRecord(
            op_id=ids.new_op_id(),
            cluster_id=await self.cluster_id(),
            action="create",
            pool=self._pool,
            node_id=ids.new_node_id(),
            reason=body.reason,
            signed=False,
            blueprint=self._blueprint,
            created_at=self._clock.now(),
            deadline=self._intake.deadline(self._blueprint, "create"),
            failed_node_id=body.failed_node_id,
        )

    async def teardown(self, machine: MachineRecord) -> Taken | None:
        """Destroy a machine that was made for an unsigned sender; None if that is under way."""
        slot = f"gone.{machine.node_id}"
        standing = await self._answering(slot)
        if standing is not None and not self._worth_repeating(standing):
            return None
        job = JobRecord(
            op_id=ids.new_op_id(),
            cluster_id=machine.cluster_id,
            action="destroy",
            pool=machine.pool,
            node_id=machine.node_id,
            reason=_TEARDOWN_REASON,
            signed=False,
            blueprint=machine.blueprint,
            created_at=self._clock.now(),
            deadline=self._intake.deadline(machine.blueprint, "destroy"),
        )
        if await self._claim(slot, job.op_id, standing.op_id if standing is not None else None) is not None:
            return None
        return await self._intake.take(job)

    def _worth_repeating(self, teardown: JobRecord) -> bool:
        ended = teardown.finished_at
        failed = teardown.state in {"failed", "cancelled"} and ended is not None
        return failed and ended is not None and self._clock.now() - ended >= _TEARDOWN_AGAIN

    async def cluster_id(self) -> str:
        """The id under which machines of unsigned senders stand: made once, kept in the store."""
        found = await self._bucket.get(_CLUSTER)
        if found is None:
            fresh = ids.new_cluster_id()
            try:
                await self._bucket.create(_CLUSTER, fresh.encode())
            except Conflict:
                return await self.cluster_id()
            return fresh
        return found.value.decode()

    # ------------------------------------------------------------ keys

    async def _answering(self, slot: str) -> JobRecord | None:
        found = await self._bucket.get(PREFIX + slot)
        return None if found is None else await self._store.get(found.value.decode())

    async def _claim(self, slot: str, op_id: str, previous: str | None) -> JobRecord | None:
        """Put ``op_id`` into a slot that still holds ``previous``; else the job that was faster."""
        key = PREFIX + slot
        found = await self._bucket.get(key)
        try:
            if found is None:
                await self._bucket.create(key, op_id.encode())
                return None
            holder = await self._store.get(found.value.decode())
            # A holder without a record: its sender was refused, or this process died in between.
            if holder is None or holder.op_id == previous:
                await self._bucket.update(key, op_id.encode(), found.revision)
                return None
        except Conflict:
            found = await self._bucket.get(key)
            holder = None if found is None else await self._store.get(found.value.decode())
        if holder is None:
            # The winner has claimed and not yet written its job; there is nothing better to answer with than a retry.
            raise Unavailable("another request is being taken")
        return holder

    async def _release(self, slot: str) -> None:
        try:
            await self._bucket.delete(PREFIX + slot)
        except Unavailable:
            log.warning("Slot %s stays claimed; the next request takes it over", slot)

    async def _remember(self, slot: str, op_id: str) -> None:
        try:
            await self._bucket.create(PREFIX + slot, op_id.encode())
        except (Conflict, Unavailable):
            log.debug("Slot %s was not stored", slot)


def _answered(body: UnsignedBody, standing: JobRecord) -> bool:
    """Whether a finished job answers this request for good: a failed node is replaced once."""
    return body.failed_node_id is not None and standing.state == "succeeded"
