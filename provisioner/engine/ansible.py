"""The Ansible engine: one forked process per job, its events as they happen, its end whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from provisioner.engine import environment, extravars, marks
from provisioner.engine.base import EngineJob, Observer, Outcome
from provisioner.engine.failure import FailureWatch, plain
from provisioner.engine.forkserver import ForkServer, ForkServerLost, JobProcess
from provisioner.engine.spec import Spec
from secbeat.errors import SecbeatError
from secbeat.wire.jobs import JobError

log = logging.getLogger("provisioner.engine")

_KILL_AFTER_GRACE_SECONDS = 5.0
Stopped = Literal["cancelled", "timeout", "idle"]


class AnsibleEngine:
    """Implements Engine with ansible-runner in processes of a fork server; ``home``: see `substitute_home`."""

    def __init__(self, server: ForkServer, *, home: Path | None = None) -> None:
        self._server, self._home = server, home

    async def run(self, job: EngineJob, observer: Observer, cancelled: asyncio.Event) -> Outcome:
        try:
            spec = _prepare(job, self._home)
        except SecbeatError as error:
            return Outcome(error=JobError(code=error.code, message=error.why, retryable=False))
        except OSError as error:
            return Outcome(error=JobError(code="JOB_DIR_UNWRITABLE", message=f"{error.filename}: {error.strerror}"))
        try:
            process = await self._server.run(spec)
            try:
                return await _Run(job, observer, process).finish(cancelled)
            finally:
                process.close()
        except ForkServerLost:
            await self._gone(spec.job)
            return Outcome(error=JobError(code="JOB_CRASHED", message="the process that runs playbooks was killed"))
        finally:
            await asyncio.to_thread(shutil.rmtree, job.work_dir, ignore_errors=True)

    async def _gone(self, mark: str) -> None:
        """Until what a lost fork server ran is gone: else the next attempt would begin beside this one."""
        with suppress(ForkServerLost):
            await self._server.start()  # which waits for the processes of the lost one
        await asyncio.to_thread(marks.sweep, mark)


def _prepare(job: EngineJob, home: Path | None) -> Spec:
    """Make the private directory. Only we write what the run reads: ansible-runner keeps any file that exists."""
    blueprint = job.blueprint
    playbook, inventory = blueprint.playbook(job.action), blueprint.inventory()
    job.work_dir.mkdir(mode=0o700, parents=True)
    for name in ("env", "tmp"):
        (job.work_dir / name).mkdir(mode=0o700)
    text = extravars.render(request=job.request, site=job.site, variables=blueprint.settings.variables)
    _write(job.work_dir / "env" / "extravars", text)
    settings = {"pexpect_timeout": 0.5, "suppress_output_file": True, "suppress_ansible_output": True}
    _write(job.work_dir / "env" / "settings", json.dumps(settings))
    attempt = f"{job.op_id}/{job.work_dir.name}"
    return Spec(
        job=attempt,
        ident=job.op_id,
        private_dir=str(job.work_dir),
        project_dir=str(blueprint.project.root),
        playbook=str(playbook),
        inventory=str(inventory),
        environment=environment.for_job(attempt, job.work_dir, blueprint.project.root, home) | job.environment,
        grace_seconds=job.grace_seconds,
    )


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


class _Run:
    """One run of one process."""

    def __init__(self, job: EngineJob, observer: Observer, process: JobProcess) -> None:
        self._job, self._observer, self._process = job, observer, process
        self._failure = FailureWatch()
        self._result: Any = None
        self._end: dict[str, Any] = {}
        self._stopped: Stopped | None = None
        self._task = ""
        self._tasks = 0
        self._heard = asyncio.get_running_loop().time()

    async def finish(self, cancelled: asyncio.Event) -> Outcome:
        """Read to the end, with a watchman beside."""
        watch = asyncio.create_task(self._watch(cancelled))
        try:
            async for line in self._process.lines():
                self._heard = asyncio.get_running_loop().time()
                self._line(line)
            exit_code = await self._process.ended()
        except asyncio.CancelledError:
            # The service stops: so does the job, and it is delivered again to whoever runs next.
            self._process.stop()
            raise
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        await self._leftovers()
        return self._outcome(exit_code)

    async def _watch(self, cancelled: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._job.timeout_seconds
        while self._stopped is None:
            left = min(end, self._heard + self._job.idle_seconds) - loop.time()
            if left <= 0:
                self._stopped = "timeout" if loop.time() >= end else "idle"
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await cancelled.wait()
                self._stopped = "cancelled"
        self._process.stop()
        await asyncio.sleep(self._job.grace_seconds + _KILL_AFTER_GRACE_SECONDS)
        log.error("Job %s does not end and is killed", self._job.op_id, extra={"action": "job_killed"})
        self._process.kill()

    def _line(self, raw: bytes) -> None:
        try:
            message = self._job.redactor.tree(json.loads(raw))
        except ValueError:
            return  # the last, cut line of a process that was killed
        if "end" in message:
            self._end = message["end"]
        elif "event" in message:
            self._event(message["event"])

    def _event(self, event: dict[str, Any]) -> None:
        data = event.get("data") or {}
        kind = event.get("event")
        self._failure.see(event)
        if kind in ("playbook_on_task_start", "playbook_on_handler_task_start"):
            self._task = str(data.get("task") or "")
            self._observer.stage(self._task[:200], self._tasks)
            self._tasks += 1
        elif kind == "playbook_on_stats":
            self._result = (data.get("artifact_data") or {}).get("secbeat_result")
        if text := event.get("stdout"):
            self._observer.output(plain(text))
        if kind != "EOF":
            self._observer.event(event)

    async def _leftovers(self) -> None:
        """What went past the event stream: warnings of the interpreter, a traceback of the job process itself."""
        path = self._job.work_dir / "stderr"
        with suppress(OSError):
            text = await asyncio.to_thread(path.read_text, encoding="utf-8", errors="replace")
            if text.strip():
                self._observer.output(plain(self._job.redactor.text(text.rstrip())))

    def _outcome(self, exit_code: int) -> Outcome:
        rc = self._end.get("rc")
        if rc == 0 and self._end.get("status") == "successful":
            return Outcome(result=self._result)
        during = f" during task '{self._task}'" if self._task else ""
        if self._stopped is not None:
            code, how = {
                "cancelled": ("JOB_CANCELLED", "it was cancelled"),
                "timeout": ("JOB_TIMEOUT", f"it ran longer than {self._job.timeout_seconds:g} s"),
                "idle": ("JOB_TIMEOUT", f"no output for {self._job.idle_seconds:g} s"),
            }[self._stopped]
            return _failed(code, f"{how}{during}", self._task)
        if crash := self._crash(exit_code):
            return _failed("JOB_CRASHED", f"{crash}{during}", self._task)
        return Outcome(error=self._failure.verdict(self._end["rc"]))

    def _crash(self, exit_code: int) -> str | None:
        """What ended early that should have told its end, if anything did."""
        if exit_code < 0:
            return f"the job's process ended by signal {-exit_code}"
        if exit_code > 0 or not self._end or self._end.get("stopped"):
            return f"the job's process ended with exit code {exit_code}"
        return "ansible-playbook was killed by a signal" if self._end.get("rc") is None else None


def _failed(code: str, message: str, task: str) -> Outcome:
    return Outcome(error=JobError(code=code, message=message, task=task[:500] or None))
