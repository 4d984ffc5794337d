"""Real commands in real processes: each test has a home, a state directory and a working directory of its own.

A process starts with a clean environment, so that nothing of the developer's own set-up decides a test, in a session
of its own, so that what it has started can be ended together with it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

BIN = Path(sys.executable).parent
CI = os.environ.get("SECBEAT_CI") == "1"

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float, what: str, *, diagnosis: Callable[[], str] = str) -> T:
    """Poll until ``condition`` gives something true; that is returned. Fails the test at the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s\n{diagnosis()}")
        time.sleep(0.05)
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free at this moment."""
    with closing(socket.create_server((host, 0))) as server:
        return int(server.getsockname()[1])


def skip_unless_ci(reason: str) -> None:
    """Skip here; where nothing may be left out (SECBEAT_CI=1), fail."""
    if CI:
        pytest.fail(f"{reason}, and nothing may be left out here (SECBEAT_CI=1)")
    pytest.skip(reason)


@dataclass
class Running:
    """A process that was started; standard output and standard error lie in files."""

    name: str
    popen: subprocess.Popen[bytes]
    stdout_file: Path
    stderr_file: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def stdout(self) -> str:
        return self.stdout_file.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text(errors="replace")

    def said(self) -> str:
        """The end of what it wrote, for a failure's message."""
        return f"--- {self.name} ({self.popen.poll()})\n{self.stdout[-3000:]}\n{self.stderr[-3000:]}"

    def ended(self, seconds: float) -> int:
        """Its exit code, waited for; the test fails at the deadline."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} has not ended after {seconds:g} s\n{self.said()}")

    def until_says(self, words: str, seconds: float = 30.0) -> None:
        """Until it has written these words; fails at once when it ends without them."""

        def look() -> bool:
            over = not self.running
            if words in self.stderr or words in self.stdout:
                return True
            if over:
                pytest.fail(f"{self.name} ended without {words!r}\n{self.said()}")
            return False

        until(look, seconds, f"{self.name} says {words!r}", diagnosis=self.said)

    def interrupt(self) -> None:
        """Ctrl-C in its terminal: to the whole session."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End it and what it has started."""
        self._signal(signal.SIGKILL)
        self.popen.wait(30)

    def _signal(self, number: signal.Signals) -> None:
        # Once it has been waited for, its number may be somebody else's.
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, number)


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """What it printed, decoded."""
        return json.loads(self.stdout)


@dataclass
class Place:
    """A directory to work in, with the environment that belongs to it.

    Args:
        root: private to the test.
        prefix: words before each command, e.g. those that enter a network namespace.
        extra: further environment variables.
    """

    root: Path
    prefix: Sequence[str] = ()
    extra: dict[str, str] = field(default_factory=dict)
    started: list[Running] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in (self.home, self.state_home, self.cwd):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def state_home(self) -> Path:
        """XDG_STATE_HOME: the default state directory is ``secbeat`` in it."""
        return self.root / "state-home"

    @property
    def cwd(self) -> Path:
        return self.root / "work"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.state_home),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            **self.extra,
        }

    def write(self, name: str, text: str, *, mode: int = 0o600) -> Path:
        """A file below the working directory."""
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def start(self, command: str | Sequence[str], *, name: str = "", **options: Any) -> Running:
        """Start a command in a terminal of its own: a text is typed into bash, words are executed.

        Whatever still runs when the test is over is killed.
        """
        words = ["bash", "-c", command] if isinstance(command, str) else [str(word) for word in command]
        name = name or " ".join(words)[:60]
        base = self.root / f"terminal-{len(self.started)}"
        with base.with_suffix(".out").open("wb") as out, base.with_suffix(".err").open("wb") as err:
            popen = subprocess.Popen(
                [*self.prefix, *words],
                cwd=self.cwd,
                env=self.environment,
                start_new_session=True,
                **{"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **options},
            )
        one = Running(name, popen, base.with_suffix(".out"), base.with_suffix(".err"))
        self.started.append(one)
        return one

    def run(self, command: str | Sequence[str], *, seconds: float = 60.0, **options: Any) -> Finished:
        """A command that ends by itself."""
        one = self.start(command, **options)
        try:
            code = one.ended(seconds)
        finally:
            one.kill()
        return Finished(code, one.stdout, one.stderr)

    def said(self) -> str:
        """What everything wrote, for a failure's message."""
        return "\n".join(one.said() for one in self.started)

    def close(self) -> None:
        """End what was started, the last one first."""
        for one in reversed(self.started):
            one.kill()
