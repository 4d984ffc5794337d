"""A run as seen by others: its log, its events, and the stage in its record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from provisioner.jobs.logfile import JobLog
from provisioner.jobs.store import JobStore
from secbeat.clock import Clock
from secbeat.store import Unavailable
from secbeat.wire.jobs import JobRecord, Progress

log = logging.getLogger("provisioner.jobs")

_INTERVAL_SECONDS = 0.5


class Reporter:
    """Implements Observer. The record is written at once and then at most twice a second, always with the newest."""

    def __init__(
        self, store: JobStore, job_log: JobLog, job: JobRecord, clock: Clock, *, on_cancel: Callable[[], None]
    ) -> None:
        self._store, self._log, self._op_id, self._attempt = store, job_log, job.op_id, job.attempt
        self._clock, self._on_cancel = clock, on_cancel
        self._progress = Progress()
        self._changed = asyncio.Event()

    def stage(self, name: str, tasks_done: int) -> None:
        self._progress = Progress(stage=name, tasks_done=tasks_done)
        self._changed.set()

    def output(self, text: str) -> None:
        self._log.line(text)

    def event(self, event: dict[str, Any]) -> None:
        self._log.event(event)

    @property
    def progress(self) -> Progress:
        """The newest."""
        return self._progress

    async def run(self) -> None:
        """Write what changes, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            with suppress(Unavailable):  # the next change or the end carries it
                await self._store.change(self._op_id, self._apply)
            await self._clock.sleep(_INTERVAL_SECONDS)

    def _apply(self, record: JobRecord) -> JobRecord | None:
        if record.state != "running" or record.attempt != self._attempt:
            return None
        if record.cancel_requested_at is not None:
            self._on_cancel()  # asked of another process that shares the store, and its hint was lost
        return record.model_copy(update={"progress": self._progress})
