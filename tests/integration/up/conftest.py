from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from provisioner.local.directory import MachineDir
from provisioner.local.teardown import stop

# The pytest plugin of looptime asks for the current event loop in synchronous tests as well; without this line asyncio
# would make one for it, which nobody closes, and a later test would be blamed for that.
asyncio.set_event_loop(None)

CONFIG = """
[orchestrator]
listen_addr = "127.0.0.1:0"
metrics_addr = "127.0.0.1:0"
heartbeat_interval_seconds = 0.5
[provisioner]
listen_addr = "127.0.0.1:0"
[pools.default]
min = {nodes}
max = 3
scaling_check_interval_seconds = 0.5
drain_deadline_seconds = 5
[blueprints.default]
variables = {{secbeat_node_propagation_seconds = 0.2}}
"""


@pytest.fixture
def make_config() -> Callable[..., str]:
    """A configuration: free ports, quick checks, so many nodes."""
    return lambda nodes=1: CONFIG.format(nodes=nodes)


@dataclass
class Up:
    """The real command on a private state directory."""

    home: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    seen: set[psutil.Process] = field(default_factory=set)

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def run_file(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.state / "run.json").read_text())
        except FileNotFoundError:
            return None

    @property
    def stdout(self) -> str:
        return (self.home / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.home / "stderr").read_text()

    def machines(self) -> list[Path]:
        return [path for path in (self.state / "machines").glob("*-*") if (path / "pid").exists()]

    def start(self, text: str, *words: str, terminal: IO[bytes] | int | None = None) -> subprocess.Popen[str]:
        (self.home / "secbeat.toml").write_text(text)
        command = [
            sys.executable,
            "-m",
            "secbeat",
            "up",
            "--config",
            "secbeat.toml",
            "--state",
            str(self.state),
            *words,
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SECBEAT")}
        streams = (self.home / "stdout").open("w"), (self.home / "stderr").open("w")
        with streams[0], streams[1]:
            out, err = streams if terminal is None else (terminal, terminal)
            process = subprocess.Popen(
                command, cwd=self.home, env=environment | {"TERM": "xterm", "NO_COLOR": "1"}, text=True,
                stdin=subprocess.DEVNULL if terminal is None else terminal, stdout=out, stderr=err,
                start_new_session=terminal is None,
            )  # fmt: skip
        self.started.append(process)
        return process

    def until(self, condition: Callable[[], object], seconds: float = 90.0) -> None:
        """Wait for it; what runs by then is remembered."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{self.stdout}\n{self.stderr[-4000:]}"
            self.look()
            time.sleep(0.05)
        self.look()

    def look(self) -> None:
        for process in self.started:
            try:
                self.seen |= set(psutil.Process(process.pid).children(recursive=True))
            except psutil.NoSuchProcess:
                continue
        for path in self.machines():
            try:
                self.seen.add(psutil.Process(json.loads((path / "pid").read_text())["pid"]))
            except (psutil.NoSuchProcess, OSError, ValueError):
                continue

    def left(self, seconds: float = 10.0) -> list[psutil.Process]:
        """Processes of this instance that still run after a while."""
        _, alive = psutil.wait_procs(list(self.seen), timeout=seconds)
        return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]

    def active(self) -> bool:
        """Whether a node serves, by the log of the orchestrator."""
        return "is active" in self.stderr


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    yield up
    up.look()
    for process in up.started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(30)
    remove_machines(up.state)
    for process in up.left(20):
        process.kill()


def remove_machines(state: Path) -> None:
    for path in (state / "machines").glob("*-*"):
        stop(MachineDir(path), grace=0)


@pytest.fixture
def soon() -> Callable[..., Any]:
    """Wait until an async condition holds; its value."""

    async def wait(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        async with asyncio.timeout(seconds):
            while True:
                if found := await condition():
                    return found
                await asyncio.sleep(0.05)

    return wait
