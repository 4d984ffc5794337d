"""Job and machine records in bucket ``jobs``, changed only by compare-and-set."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from secbeat import subjects
from secbeat.clock import Clock
from secbeat.errors import ConfigError
from secbeat.store import Bucket, Conflict, Entry, Messaging, Unavailable
from secbeat.wire.jobs import FINISHED, JobRecord, MachineRecord

log = logging.getLogger("provisioner.jobs")

JOB, MACHINE = "job.", "machine."
_REMEMBERED = 1000
Change = Callable[[JobRecord], JobRecord | None]


class JobStore:
    """The records. Every method may raise Unavailable."""

    def __init__(self, bucket: Bucket, messaging: Messaging, clock: Clock) -> None:
        self.bucket = bucket
        self._messaging, self._clock = messaging, clock
        # What each job's record was when this process last saw it: a change that builds on it saves the reading, and
        # one that builds on something outdated is refused by the store and made again.
        self._seen: OrderedDict[str, Entry] = OrderedDict()

    async def create(self, record: JobRecord) -> JobRecord | None:
        """Write a new job; None if it is written now, else the record that stands there already."""
        key = JOB + record.op_id
        try:
            revision = await self.bucket.create(key, record.encode())
            self._remember(record.op_id, Entry(key, record.encode(), revision))
        except Conflict:
            return await self.get(record.op_id)
        except Unavailable:
            # Perhaps it was written: what stands there tells.
            found = await self.get(record.op_id)
            if found is None or found.created_at != record.created_at:
                raise
        return None

    async def get(self, op_id: str) -> JobRecord | None:
        """A job's record."""
        found = await self._read(op_id)
        return None if found is None else JobRecord.decode(found.value)

    def seen(self, op_id: str) -> JobRecord | None:
        """A job's record as this process last saw or wrote it, if it remembers; good enough to start from."""
        found = self._seen.get(op_id)
        return None if found is None else JobRecord.decode(found.value)

    async def _read(self, op_id: str) -> Entry | None:
        found = await self.bucket.get(JOB + op_id)
        if found is not None:
            self._remember(op_id, found)
        return found

    def _remember(self, op_id: str, entry: Entry) -> None:
        self._seen[op_id] = entry
        self._seen.move_to_end(op_id)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    async def change(self, op_id: str, change: Change) -> JobRecord | None:
        """Apply ``change`` to the newest record until the write holds.

        ``change`` may be called more than once; it returns None to leave the record as it is. Returns the record as
        it stands, None if there is none.
        """
        found = self._seen.pop(op_id, None)
        fresh = found is None
        while True:
            if fresh:
                found = await self._read(op_id)
            if found is None:
                return None
            record = JobRecord.decode(found.value)
            changed = change(record)
            if changed is None or changed == record:
                if fresh:
                    return record
                fresh = True
                continue
            written = changed.encode()
            try:
                revision = await self.bucket.update(JOB + op_id, written, found.revision)
            except Conflict:
                fresh = True
                continue
            self._remember(op_id, Entry(JOB + op_id, written, revision))
            await self.hint(changed)
            return changed

    async def hint(self, record: JobRecord) -> None:
        """Tell whoever listens that the record has changed; the record is the truth."""
        hint: dict[str, Any] = {
            "v": 1,
            "op_id": record.op_id,
            "state": record.state,
            "stage": record.progress.stage,
            "cancel": record.cancel_requested_at is not None and record.state not in FINISHED,
        }
        try:
            await self._messaging.publish(subjects.job_hint(record.op_id), json.dumps(hint).encode())
        except Unavailable:
            log.debug("No hint sent for %s", record.op_id)

    async def jobs(self) -> list[JobRecord]:
        """All jobs, the newest first; records that cannot be read are logged and left out."""
        found = [_decode(entry.value, JobRecord, entry.key) for entry in await self.bucket.entries(JOB)]
        return sorted((one for one in found if one is not None), key=lambda one: one.op_id, reverse=True)

    async def machines(self) -> list[MachineRecord]:
        """All machines that a create was started for and whose destroy is not proved."""
        found = [_decode(entry.value, MachineRecord, entry.key) for entry in await self.bucket.entries(MACHINE)]
        return [one for one in found if one is not None]

    async def machine(self, node_id: str) -> MachineRecord | None:
        """One machine's record."""
        found = await self.bucket.get(MACHINE + node_id)
        return None if found is None else MachineRecord.decode(found.value)

    async def put_machine(self, record: MachineRecord) -> None:
        """Write a machine's record; only the job that holds the node's lock does."""
        await self.bucket.put(MACHINE + record.node_id, record.encode())

    async def drop_machine(self, node_id: str) -> None:
        """Its destroy is proved."""
        await self.bucket.delete(MACHINE + node_id)


def _decode(data: bytes, model: Any, key: str) -> Any:
    try:
        return model.decode(data)
    except (ValidationError, ConfigError) as error:
        log.warning("Record %s cannot be read: %s", key, str(error)[:300], extra={"action": "record_unreadable"})
        return None
