"""Which machines there are, from their directories alone."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from provisioner.local.directory import MachineDir, read_join
from secbeat.errors import SecbeatError
from secbeat.wire.jobs import ListedMachine


def list_machines(machines_dir: Path) -> list[ListedMachine]:
    """See `provisioner.local.list_machines`."""
    try:
        paths = sorted(machines_dir.absolute().iterdir())
    except FileNotFoundError:
        return []
    found = (_machine(path) for path in paths)
    return [machine for machine in found if machine is not None]


def _machine(path: Path) -> ListedMachine | None:
    try:
        directory = MachineDir(path)
        # Before its tags are written a machine is known by the join file that was put there for it.
        body = directory.read_tags() or read_join(path)
        if body is None:
            return None
        return ListedMachine(
            node_id=body["node_id"],
            op_id=body.get("op_id"),
            cluster_id=body.get("cluster_id"),
            pool=body["pool"],
            name=path.name,
            address=body.get("address"),
            running=directory.process() is not None,
        )
    except (KeyError, ValidationError) as error:
        raise OSError(f"{path}: not a machine's tags: {error}") from None
    except SecbeatError:
        return None  # some other file or directory
