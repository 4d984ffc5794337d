"""Requests to cancel a job that arrive over NATS: the orchestrator asks, the provisioner answers by the record."""

from __future__ import annotations

import asyncio
import json
import logging

from provisioner.jobs.worker import Worker
from secbeat import ids, subjects
from secbeat.store import Messaging, Unavailable

log = logging.getLogger("provisioner.jobs")

_WAITING = 1000


async def cancel_on_hint(messaging: Messaging, worker: Worker) -> None:
    """Serve until cancelled. Our own hints pass by as well: a request that is recorded already changes nothing."""
    asked: asyncio.Queue[str] = asyncio.Queue(_WAITING)

    def on_hint(subject: str, payload: bytes) -> None:
        if b'"cancel"' not in payload or asked.full():
            return
        try:
            op_id = ids.check_op_id(subject.rpartition(".")[2])
            wanted = json.loads(payload).get("cancel") is True
        except (ValueError, AttributeError, RecursionError):
            return
        if wanted:
            asked.put_nowait(op_id)

    subscription = await messaging.subscribe(subjects.JOB_HINTS, on_hint)
    try:
        while True:
            op_id = await asked.get()
            try:
                await worker.request_cancel(op_id)
            except Unavailable as error:
                log.warning("The request to cancel %s is not recorded: %s", op_id, error)
    finally:
        await subscription.close()
