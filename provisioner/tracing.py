"""A job's spans: the job, each attempt, each task on each host. Nothing for a job that came without a trace context.

Tasks are seen in the event stream of the engine, not by a plugin inside the playbook's process, so a playbook that is
killed has spans as well. An attempt whose provisioner died is closed by whoever takes the job over: its events lie in
the job's directory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from provisioner.engine.base import Engine, EngineJob, Observer, Outcome
from secbeat.clock import Clock
from secbeat.telemetry import context
from secbeat.telemetry.tracing import Span, Tracing, Value, beneath, id_of
from secbeat.wire.jobs import JobRecord

_DONE = {"runner_on_ok": "ok", "runner_on_skipped": "skipped"}
_BROKEN = {"runner_on_failed": "failed", "runner_on_unreachable": "unreachable"}
_TAIL_BYTES = 1 << 20
# Whoever adds the community's callback plugin continues our trace; it would send the arguments of tasks with it.
_CALLBACK = {"ANSIBLE_OPENTELEMETRY_HIDE_TASK_ARGUMENTS": "true"}


def job_context(job: JobRecord) -> str | None:
    """The context of the job's own span."""
    begun = context.checked(job.traceparent)
    return None if begun is None else beneath(begun, job.op_id, "job")


def attempt_context(job: JobRecord, number: int) -> str | None:
    """The context of the span of one attempt: what the playbook's own processes find in TRACEPARENT."""
    begun = context.checked(job.traceparent)
    return None if begun is None else beneath(begun, job.op_id, "attempt", number)


@dataclass(frozen=True)
class JobTracing:
    """Tells of jobs and attempts. ``events``: the file with a job's events."""

    tracing: Tracing
    clock: Clock
    events: Callable[[str], Path]

    def ended(self, job: JobRecord) -> None:
        """The job has ended: its own span."""
        own = job_context(job)
        if own is None or job.traceparent is None or job.finished_at is None:
            return
        self.tracing.record(
            Span(
                traceparent=own,
                parent_id=id_of(job.traceparent),
                name=f"job {job.action}",
                kind="server",
                start=job.created_at,
                end=job.finished_at,
                attributes={
                    "secbeat.op_id": job.op_id,
                    "secbeat.pool": job.pool,
                    "secbeat.node_id": job.node_id,
                    "secbeat.blueprint": job.blueprint,
                    "secbeat.engine": job.engine,
                    "secbeat.target": job.target,
                    "secbeat.job.attempts": job.attempt,
                    "secbeat.job.state": job.state,
                },
                error=(job.error.code if job.error is not None else job.state) if job.state != "succeeded" else None,
            )
        )

    async def left_behind(self, job: JobRecord) -> None:
        """The process that ran ``job`` has died: what it can no longer tell is told, and closed with an error."""
        own, now = attempt_context(job, job.attempt), self.clock.now()
        if own is None or job.attempt == 0:
            return
        tasks = TaskSpans(self.tracing, self.clock, own)
        for event in await asyncio.to_thread(lambda: list(_last_run(self.events(job.op_id)))):
            tasks.see(event)
        tasks.close("JOB_CRASHED")
        self._attempt(job, start=job.attempt_started_at or job.started_at or now, end=now, error="JOB_CRASHED")

    def _attempt(self, job: JobRecord, *, start: datetime, end: datetime, error: str | None) -> None:
        own, parent = attempt_context(job, job.attempt), job_context(job)
        if own is None or parent is None:
            return
        attributes: dict[str, Value] = {"secbeat.job.attempt": job.attempt, "secbeat.op_id": job.op_id}
        self.tracing.record(
            Span(
                traceparent=own,
                parent_id=id_of(parent),
                name=f"attempt {job.attempt}",
                start=start,
                end=end,
                attributes=attributes,
                error=error,
            )
        )

    def around(self, engine: Engine, find: Callable[[str], JobRecord | None]) -> Engine:
        """``engine``, with a span for each run and its tasks; ``find``: the record of a job that was just taken."""
        return _Traced(engine, self, find)

    async def run(
        self, engine: Engine, record: JobRecord, job: EngineJob, observer: Observer, cancelled: asyncio.Event
    ) -> Outcome:
        """One traced run."""
        own, start = attempt_context(record, record.attempt), self.clock.now()
        if own is None:
            return await engine.run(job, observer, cancelled)
        tasks = TaskSpans(self.tracing, self.clock, own)
        traced = replace(job, environment={"TRACEPARENT": own, **_CALLBACK})
        # A run that is cancelled, because the service stops, is closed by whoever takes the job over.
        outcome = await engine.run(traced, _Watched(observer, tasks), cancelled)
        error = outcome.error.code if outcome.error is not None else None
        tasks.close(error or "JOB_ENDED")
        self._attempt(record, start=start, end=self.clock.now(), error=error)
        return outcome


@dataclass(frozen=True)
class _Traced:
    """Implements Engine."""

    engine: Engine
    spans: JobTracing
    find: Callable[[str], JobRecord | None]

    async def run(self, job: EngineJob, observer: Observer, cancelled: asyncio.Event) -> Outcome:
        record = self.find(job.op_id)
        if record is None or record.traceparent is None:
            return await self.engine.run(job, observer, cancelled)
        return await self.spans.run(self.engine, record, job, observer, cancelled)


@dataclass(frozen=True)
class _Watched:
    """Implements Observer: passes everything on."""

    inner: Observer
    tasks: TaskSpans

    def stage(self, name: str, tasks_done: int) -> None:
        self.inner.stage(name, tasks_done)

    def output(self, text: str) -> None:
        self.inner.output(text)

    def event(self, event: dict[str, Any]) -> None:
        self.tasks.see(event)
        self.inner.event(event)


class TaskSpans:
    """A span for each task on each host, from the engine's events; what the events hold of arguments stays there."""

    def __init__(self, tracing: Tracing, clock: Clock, attempt: str) -> None:
        self._tracing, self._clock, self._attempt = tracing, clock, attempt
        self._open: dict[tuple[str, str], tuple[datetime, dict[str, Any], object]] = {}

    def see(self, event: dict[str, Any]) -> None:
        """One event, already redacted."""
        kind, data = event.get("event"), event.get("data") or {}
        key = (str(data.get("host", "")), str(data.get("task", "")))
        if kind == "runner_on_start":
            self._open[key] = (self._moment(event), data, event.get("counter"))
        elif kind in _DONE or kind in _BROKEN:
            end = self._moment(event)
            begun = self._open.pop(key, None)
            start = begun[0] if begun is not None else end - timedelta(seconds=float(data.get("duration") or 0.0))
            number = begun[2] if begun is not None else event.get("counter")
            error = None if kind in _DONE or data.get("ignore_errors") else _BROKEN[kind]
            self._tell(data, number, start, end, error, (_DONE | _BROKEN)[kind])

    def close(self, why: str) -> None:
        """The run is over: tasks that never came to an end are closed with an error."""
        for start, data, number in self._open.values():
            self._tell(data, number, start, self._clock.now(), why, "unfinished")
        self._open.clear()

    def _tell(  # noqa: PLR0917 - a span's parts
        self, data: dict[str, Any], number: object, start: datetime, end: datetime, error: str | None, result: str
    ) -> None:
        attributes: dict[str, Value] = {"ansible.task.result": result}
        for name, key in (("task.name", "task"), ("task.action", "task_action"), ("role", "role"), ("host", "host")):
            if data.get(key):
                attributes[f"ansible.{name}"] = str(data[key])[:500]
        self._tracing.record(
            Span(
                traceparent=beneath(self._attempt, id_of(self._attempt), "task", number),
                parent_id=id_of(self._attempt),
                name=str(data.get("task") or "task")[:200],
                start=start,
                end=end,
                attributes=attributes,
                error=error,
            )
        )

    def _moment(self, event: dict[str, Any]) -> datetime:
        with suppress(ValueError, TypeError):
            found = datetime.fromisoformat(event["created"])
            return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return self._clock.now()


def _last_run(path: Path) -> Iterator[dict[str, Any]]:
    """The events of the newest run in a job's file, as far as its last megabyte holds them."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return
    events: list[dict[str, Any]] = []
    for line in lines:
        with suppress(ValueError):  # the first one may be cut by us, the last one by a crash
            event = json.loads(line)
            if not isinstance(event, dict):
                continue
            if event.get("counter") == 1:
                events.clear()
            events.append(event)
    yield from events
