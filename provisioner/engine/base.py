"""What the job runner asks of an engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from provisioner.engine.blueprints import Blueprint
from provisioner.redact import Redactor
from secbeat.wire.jobs import JobError
from secbeat.wire.webhook import Action


@dataclass(frozen=True)
class EngineJob:
    """One run. ``request`` is data from the wire, ``site`` says where things are here; neither holds a secret.

    ``work_dir`` does not exist yet; the engine makes it 0700 and removes it at the end. ``timeout_seconds`` bounds the
    whole run, ``idle_seconds`` the time without any output. ``environment`` is added to what a job's process gets.
    """

    op_id: str
    action: Action
    blueprint: Blueprint
    request: dict[str, str]
    site: dict[str, str]
    work_dir: Path
    timeout_seconds: float
    redactor: Redactor
    environment: dict[str, str] = field(default_factory=dict)
    idle_seconds: float = 900.0
    grace_seconds: float = 10.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with the playbook's ``secbeat_result`` (None: it set none), or with an error."""

    result: Any = None
    error: JobError | None = None


class Observer(Protocol):
    """Hears of a run as it goes on; everything it is told is redacted."""

    def stage(self, name: str, tasks_done: int) -> None:
        """A task starts."""
        ...

    def output(self, text: str) -> None:
        """Text that the playbook printed, without its last line end."""
        ...

    def event(self, event: dict[str, Any]) -> None:
        """One event of the engine."""
        ...


class Engine(Protocol):
    """Runs jobs."""

    async def run(self, job: EngineJob, observer: Observer, cancelled: asyncio.Event) -> Outcome:
        """Run to the end; stops, and leaves no process, when ``cancelled`` is set or a time limit passes.

        Failures come back as an Outcome with an error, never as an exception.
        """
        ...
