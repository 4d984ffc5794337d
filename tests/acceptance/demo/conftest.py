from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest

from provisioner.local.directory import MachineDir
from provisioner.local.teardown import stop


@dataclass
class Demo:
    """`secbeat demo` as a person starts it, watched from outside: every process that it ever had is remembered."""

    home: Path
    process: subprocess.Popen[bytes] | None = None
    seen: set[psutil.Process] = field(default_factory=set)

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SECBEAT")}
        with (self.home / "stdout").open("w") as out, (self.home / "stderr").open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "secbeat", "demo", "--json"],
                env=environment | {"TMPDIR": str(self.home)},
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip

    @property
    def stderr(self) -> str:
        return (self.home / "stderr").read_text()

    @property
    def result(self) -> dict[str, Any]:
        """The one object on standard output."""
        return json.loads((self.home / "stdout").read_text())

    @property
    def state(self) -> Path | None:
        """The state directory, as the demo tells it."""
        said = [line for line in self.stderr.splitlines() if line.startswith("state: ")]
        return Path(said[0].split()[1]) if said else None

    def directories(self) -> list[Path]:
        return list(self.home.glob("secbeat-demo-*"))

    def nodes(self) -> list[dict[str, Any]]:
        """All nodes by the API; none while there is no API."""
        run_file = self.state and self.state / "run.json"
        if not run_file or not run_file.exists():
            return []
        run = json.loads(run_file.read_text())
        token = Path(run["token_file"]).read_text().strip()
        request = Request(f"{run['url']}/api/v1/nodes?all=1", headers={"Authorization": f"Bearer {token}"})
        with urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def machines(self) -> dict[str, psutil.Process]:
        """Machine name → its process."""
        found = {}
        for path in [] if self.state is None else self.state.glob("machines/*/pid"):
            try:
                found[path.parent.name] = psutil.Process(json.loads(path.read_text())["pid"])
            except (OSError, ValueError, psutil.NoSuchProcess):
                continue
        return found

    def look(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.seen |= {psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)}
        self.seen |= set(self.machines().values())

    def until(self, condition: Callable[[], Any], seconds: float = 250.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, f"the demo ended: {self.stderr}"
            assert time.monotonic() < deadline, self.stderr
            self.look()
            time.sleep(0.05)
        self.look()
        return found

    def wait(self, seconds: float = 350.0) -> int:
        """Its exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.stderr
            self.look()
            time.sleep(0.1)
        return self.process.returncode

    def remains(self) -> list[str]:
        """What of it still runs; its services' own children get a moment to follow."""
        _, alive = psutil.wait_procs(list(self.seen), timeout=5)
        left = []
        for process in alive:
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    left.append(f"{process.pid} {' '.join(process.cmdline())}")
            except psutil.NoSuchProcess:
                continue
        return left


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path)
    made.start()
    yield made
    if made.process.poll() is None:
        made.look()
        made.process.kill()
    made.process.wait(30)
    for directory in tmp_path.glob("secbeat-demo-*/machines/*-*"):
        stop(MachineDir(directory), grace=0)
    # Its services are asked to end by the kernel; whoever does not is ended here.
    _, alive = psutil.wait_procs(list(made.seen), timeout=20)
    for process in alive:
        process.kill()
