from __future__ import annotations

import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provisioner.local.directory import MachineDir, Tags
from provisioner.local.teardown import stop
from secbeat import ids

DUMMY = Path(__file__).with_name("dummy.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Site:
    """A private machines directory whose machines are dummies."""

    root: Path
    ports: tuple[int, int, int]
    made: list[MachineDir] = field(default_factory=list)

    @property
    def config(self) -> str:
        proxy, metrics, management = self.ports
        return (
            f'[node]\nlisten_addr = "0.0.0.0:{proxy}"\nmetrics_addr = "0.0.0.0:{metrics}"\npublic_ip = "0.0.0.0"\n'
            f'join_file = "join.json"\n[management]\nlisten_addr = "0.0.0.0:{management}"\n'
            "shutdown_grace_period = 5\n"
        )

    def tags(self, pool: str = "default") -> Tags:
        return Tags(str(uuid.uuid4()), pool, ids.new_op_id(), str(uuid.uuid4()))

    def directory(self, tags: Tags) -> MachineDir:
        self.made.append(MachineDir(self.root / tags.name))
        return self.made[-1]

    def dummy(self, mode: str = "serve") -> list[str]:
        return [sys.executable, str(DUMMY), mode]

    def command(self, action: str, tags: Tags, *more: str, mode: str = "serve") -> subprocess.Popen[str]:
        """Run the real command."""
        self.directory(tags)
        words = [sys.executable, "-m", "provisioner.local", action, f"--machines-dir={self.root}"]
        words += [f"--node-id={tags.node_id}", f"--pool={tags.pool}"]
        if action == "start":
            words += ["--config=-", f"--command={json.dumps(self.dummy(mode))}"]
        process = subprocess.Popen(
            [*words, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdin.write(self.config if action == "start" else "")
        process.stdin.close()
        process.stdin = None
        return process


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "machines", (free_port(), free_port(), free_port()))
    yield site
    for directory in site.made:
        if directory.path.is_dir() and not directory.path.is_symlink():
            stop(directory, grace=0)
