from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provisioner.local.directory import MachineDir
from provisioner.local.teardown import stop

ROOT = Path(__file__).parents[3]
DUMMY = ROOT / "tests" / "unit" / "provisioner" / "local" / "dummy.py"


@dataclass(frozen=True)
class Run:
    """One run of ansible-playbook."""

    code: int
    output: str

    @property
    def result(self) -> dict[str, Any]:
        """What the play reported as ``secbeat_result``."""
        stats = self.output.partition("RUN: ")[2]
        return json.JSONDecoder().raw_decode(stats.strip())[0]["secbeat_result"]


@dataclass(frozen=True)
class Ansible:
    """The real ansible-playbook on a private state directory."""

    state: Path
    node_id: str

    @property
    def directory(self) -> Path:
        return self.state / "machines" / f"default-{self.node_id[:8]}"

    @property
    def root(self) -> Path:
        """The checkout."""
        return ROOT

    def dummy(self, mode: str = "serve") -> str:
        """The variable that starts a stand-in instead of the node."""
        return f"secbeat_node_command: {json.dumps([sys.executable, str(DUMMY), mode])}\n"

    def play(self, name: str, *words: str, variables: str = "", cwd: Path = ROOT) -> Run:
        """Run a playbook; ``variables`` is the text of a YAML file of extra variables."""
        extra = self.state / f"{name}.{uuid.uuid4().hex[:6]}.yml"
        extra.write_text(variables or "{}")
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.state),
            "LANG": "C.UTF-8",
            "SECBEAT_STATE": str(self.state),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.state / "ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        }
        command = ["ansible-playbook", str(ROOT / "playbooks" / name), "-i", str(ROOT / "inventories" / "local")]
        done = subprocess.run(
            [*command, "-e", f"@{extra}", *words],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Run(done.returncode, done.stdout + done.stderr)

    def by_hand(self, name: str, *words: str, variables: str = "") -> Run:
        return self.play(name, "-e", "pool=default", "-e", f"node_id={self.node_id}", *words, variables=variables)


@pytest.fixture
def ansible(tmp_path: Path) -> Iterator[Ansible]:
    ansible = Ansible(tmp_path, str(uuid.uuid4()))
    yield ansible
    for path in (tmp_path / "machines").glob("*-*"):
        if path.is_dir() and not path.is_symlink():
            stop(MachineDir(path), grace=0)
