"""Job records, as the provisioner writes them; a callback route stands in for receivers that cannot speak NATS."""

from __future__ import annotations

import logging
from datetime import datetime

import msgspec
from pydantic import ValidationError

from secbeat import subjects
from secbeat.errors import ConfigError
from secbeat.store import Bucket, Entry, Messaging
from secbeat.wire.base import VERSION
from secbeat.wire.jobs import FINISHED, JobRecord

log = logging.getLogger("orchestrator.jobs")


def _key(op_id: str) -> str:
    return f"job.{op_id}"


class Jobs:
    """Reads bucket ``jobs``. What came in by the callback route lies in our own bucket under the same key."""

    def __init__(self, *, jobs: Bucket, state: Bucket, messaging: Messaging) -> None:
        self._jobs = jobs
        self._state = state
        self._messaging = messaging

    async def get(self, op_id: str) -> JobRecord | None:
        """The job of an operation, or None; the provisioner's own record before a reported one.

        Raises:
            Unavailable: the store does not answer.
        """
        for bucket in (self._jobs, self._state):
            entry = await bucket.get(_key(op_id))
            if entry is not None and (record := _decode(entry)) is not None:
                return record
        return None

    async def all(self) -> list[JobRecord]:
        """Every readable job, oldest first."""
        found = {}
        for bucket in (self._state, self._jobs):
            for entry in await bucket.entries("job."):
                if (record := _decode(entry)) is not None:
                    found[record.op_id] = record
        return sorted(found.values(), key=lambda record: record.op_id)

    async def report(self, record: JobRecord) -> None:
        """Keep what a receiver reported; a finished job is not changed any more."""
        entry = await self._state.get(_key(record.op_id))
        known = _decode(entry) if entry is not None else None
        if known is None or known.state not in FINISHED:
            await self._state.put(_key(record.op_id), record.encode())

    async def request_cancel(self, op_id: str, *, now: datetime) -> JobRecord | None:
        """Ask the executing provisioner to cancel; it answers by the job's record. None: no such job.

        Only provisioners write job records, so this is a message, and the answer shows the request as made.
        """
        record = await self.get(op_id)
        if record is None or record.state in FINISHED:
            return record
        hint = {"v": VERSION, "op_id": op_id, "state": record.state, "stage": record.progress.stage, "cancel": True}
        await self._messaging.publish(subjects.job_hint(op_id), msgspec.json.encode(hint))
        return record if record.cancel_requested_at else record.model_copy(update={"cancel_requested_at": now})

    async def forget(self, op_id: str) -> None:
        """Remove what was reported for an operation."""
        await self._state.delete(_key(op_id))


def _decode(entry: Entry) -> JobRecord | None:
    try:
        record = JobRecord.decode(entry.value)
    except (ValidationError, ConfigError) as error:
        log.warning("%s is not a readable job: %s", entry.key, str(error)[:300], extra={"action": "job_unreadable"})
        return None
    return record if _key(record.op_id) == entry.key else None
