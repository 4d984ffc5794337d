"""The target `local`: machines that are processes on this computer, for the demo, for tests and for a first look.

    <machines_dir>/<pool>-<first 8 of node_id>/
        machine.json    tags and address; written first, removed last
        node.toml       the node's configuration, its listen addresses narrowed to the machine's own
        join.json       written by the provisioner, deleted by the node once it has joined
        pid             which process it is (pid and start time)
        state/ logs/    the node's

A machine is no child of the job that starts it and nobody restarts it: the loop replaces it. Its loopback address is
held by a lease that the process inherits, so that the address is free again exactly when the process is gone.
``python -m provisioner.local start|stop`` is what the role `secbeat_node` runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secbeat.wire.jobs import ListedMachine

__all__ = ["list_machines"]


def list_machines(machines_dir: Path) -> list[ListedMachine]:
    """Every machine below ``machines_dir``; none when the directory does not exist.

    Raises:
        OSError: the list would be incomplete (something is unreadable), so it proves nothing.
    """
    # Lazily, because the launcher imports this package and must not pay for pydantic on every start.
    from provisioner.local.listing import list_machines as listed  # noqa: PLC0415

    return listed(machines_dir)
