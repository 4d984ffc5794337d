"""Pages that promise to be complete are followed to the letter."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.support import until
from tests.docs.pages import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RACK = """
rack:
  hosts:
    rack-1: {{address: 127.0.3.1}}
    rack-2: {{address: 127.0.3.2}}
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
    node_dir: "{root}/{{{{ inventory_hostname }}}}"
    # A service manager starts a unit outside the job, with an environment of its own.
    node_start:
      - sh
      - -c
      - env -i PATH="$PATH" setsid -f secbeat node --config "$0/node.toml" >"$0/log" 2>&1 </dev/null
      - "{{{{ node_dir }}}}"
    node_stop: ["true"]
"""


def running_below(root: Path) -> list[int]:
    """Processes whose command line names something below ``root``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(root) in (entry / "cmdline").read_text() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_pool_of_ones_own_machines_grows_and_shrinks_by_ones_own_playbooks(reader, tmp_path):
    machines = tmp_path / "machines"
    machines.mkdir()
    try:
        reader.follow(
            ROOT / "docs" / "howto" / "own-machines.md",
            replaced={"inventories/rack/hosts.yml": RACK.format(root=machines)},
        )
        until(lambda: not running_below(machines), 10, "no node is left")
        assert not list(machines.iterdir()), "the machines are cleared"
    finally:
        for pid in running_below(machines):
            os.kill(pid, signal.SIGKILL)
