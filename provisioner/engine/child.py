"""One job's process: a fork of the fork server that runs ansible-runner and prints JSON lines.

ansible-runner's own cancel and timeout kill the process group of ``ansible-playbook`` and leave its workers, which
live in sessions of their own, running. Here a stop (SIGTERM) is passed to ``ansible-playbook``, which ends its
workers itself, and whatever is left after a grace period is ended by the list of descendants taken at that moment.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import ansible_runner
import psutil
import ptyprocess  # type: ignore[import-untyped]  # published without types; comes with ansible-runner

from provisioner.engine import marks
from provisioner.engine.spec import MAX_MESSAGE, Spec

_PR_SET_PDEATHSIG = 1
_CLIP = 256 * 1024
_RESEND_SECONDS = 1.0


def die_with_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel for ``number`` when ``parent`` ends (Linux); ends now if it has ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Stopper:
    """The stop request and what follows from it."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace = grace_seconds
        self._asked: float | None = None
        self._sent = 0.0
        self._recorded: dict[int, psutil.Process] = {}

    @property
    def asked(self) -> bool:
        return self._asked is not None

    def on_signal(self, _number: int, _frame: object) -> None:
        """The SIGTERM handler: acts at once, because the main loop looks only every half second."""
        if self._asked is None:
            self._asked = time.monotonic()
        self._pass_on()

    def cancel_callback(self) -> bool:
        """For ansible-runner: True, which makes it SIGKILL, only after the grace period."""
        if self._asked is None:
            return False
        now = time.monotonic()
        # A signal that arrives between fork and exec is lost with the handler that the fork inherited.
        if now - self._sent >= _RESEND_SECONDS:
            self._pass_on()
        return now - self._asked >= self._grace

    def _pass_on(self) -> None:
        self._sent = time.monotonic()
        try:
            me = psutil.Process()
            self._recorded.update({process.pid: process for process in me.children(recursive=True)})
            direct = me.children()
        except psutil.Error:
            return
        for process in direct:
            try:
                process.send_signal(signal.SIGTERM)
            except psutil.Error:
                continue

    def sweep(self, job: str) -> None:
        """End what is left of the recorded descendants and of the processes that carry the job's mark."""
        if self.asked:
            marks.end(process for process in self._recorded.values() if process.is_running())
            marks.sweep(job)


def run(spec: Spec, events: int) -> NoReturn:
    """A job from here to its end, in a process that is detached; ``events`` is the descriptor for JSON lines."""
    code = 1
    try:
        _furnish(spec)
        stopper = Stopper(spec.grace_seconds)
        signal.signal(signal.SIGTERM, stopper.on_signal)
        with os.fdopen(events, "w", encoding="utf-8", errors="replace") as out:
            _say(out, {"end": _play(spec, stopper, out)})
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may return into the fork server's code
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for_job(channel: socket.socket, parent: int) -> NoReturn:
    """The life of a process that was forked ahead of its job: the spec, and the descriptor of `run`, come later."""
    detach(parent)
    data, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE, 1)
    channel.close()
    if not data:
        os._exit(0)
    run(Spec(**json.loads(data)), descriptors[0])


def detach(parent: int) -> None:
    """A session of its own, an end together with the parent, private files, no core dumps."""
    os.setsid()
    die_with_parent(parent)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _no_pause_at_the_end()


def _furnish(spec: Spec) -> None:
    os.environ.clear()
    os.environ.update(spec.environment)
    null = os.open(os.devnull, os.O_RDONLY)
    errors = os.open(Path(spec.private_dir, "stderr"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    # Whatever else prints must not get into the stream of events.
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    os.close(null)
    os.close(errors)
    os.chdir(spec.private_dir)


def _play(spec: Spec, stopper: Stopper, out: Any) -> dict[str, Any]:
    def on_event(event: dict[str, Any]) -> bool:
        _say(out, {"event": _trim(event)})
        return False  # not stored a second time on disk

    try:
        runner = ansible_runner.run(
            private_data_dir=spec.private_dir,
            project_dir=spec.project_dir,
            playbook=spec.playbook,
            inventory=spec.inventory,
            ident=spec.ident,
            event_handler=on_event,
            cancel_callback=stopper.cancel_callback,
            fact_cache_type="",
            quiet=True,
        )
    finally:
        stopper.sweep(spec.job)
    return {"rc": runner.rc, "status": runner.status, "stopped": stopper.asked}


def _no_pause_at_the_end() -> None:
    """Ptyprocess sleeps a tenth of a second after each close, for programs that have not ended yet; ours has."""
    made = ptyprocess.PtyProcess.__init__

    def init(self: Any, *arguments: Any) -> None:
        made(self, *arguments)
        self.delayafterclose = 0.0

    ptyprocess.PtyProcess.__init__ = init


def _say(out: Any, line: dict[str, Any]) -> None:
    out.write(json.dumps(line, default=str) + "\n")
    out.flush()


def _trim(event: dict[str, Any]) -> dict[str, Any]:
    """What is worth keeping; the output itself is never cut, copies of it within the event are."""
    data = event.get("event_data") or {}
    kept: dict[str, Any] = {
        key: data[key]
        for key in ("play", "task", "task_action", "role", "host", "ignore_errors", "duration")
        if data.get(key)
    }
    for key in ("ok", "changed", "failures", "dark", "rescued", "ignored", "artifact_data"):
        if event.get("event") == "playbook_on_stats" and data.get(key):
            kept[key] = data[key]
    if isinstance(data.get("res"), dict):
        kept["res"] = _clip({key: value for key, value in data["res"].items() if not key.endswith("_lines")})
    return {
        "event": event.get("event", ""),
        "counter": event.get("counter", 0),
        "created": event.get("created", ""),
        "stdout": event.get("stdout", ""),
        "data": kept,
    }


def _clip(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _CLIP else f"{value[:_CLIP]}… ({len(value)} characters)"
    if isinstance(value, dict):
        return {key: _clip(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clip(item) for item in value]
    return value
