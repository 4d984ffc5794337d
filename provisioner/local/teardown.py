"""Stop a machine: its process, by pid file and start time, then its directory."""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from provisioner.local.config import read_config
from provisioner.local.directory import MachineDir, unusable
from provisioner.local.processes import send, wait_for_end
from secbeat.errors import SecbeatError

_DEFAULT_GRACE = 75.0
_KILL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """A machine that is gone. ``forced``: it had to be killed."""

    name: str
    gone: bool
    forced: bool
    changed: bool

    def plain(self) -> dict[str, Any]:
        """What the playbook reports."""
        return asdict(self)


def stop(directory: MachineDir, *, grace: float | None = None) -> Stopped:
    """End the machine's process and remove its directory; a machine that is not there is gone already.

    Args:
        directory: the machine's.
        grace: seconds between SIGTERM, on which a node drains, and SIGKILL; None: what its configuration allows
            for a drain, and a little more.

    Raises:
        SecbeatError: MACHINE_STUCK, MACHINE_BUSY, MACHINE_DIRECTORY.
    """
    try:
        # Before the lock: a start that waits for this very process holds the lock until the process is gone.
        forced = _end(directory, grace)
        with directory.locked(_KILL_SECONDS) as there:
            if there:
                forced |= _end(directory, grace)
                directory.remove()
    except OSError as error:
        raise unusable(directory.path, error) from None
    return Stopped(directory.name, gone=True, forced=forced, changed=there)


def _end(directory: MachineDir, grace: float | None) -> bool:
    process = directory.process()
    if process is None:
        return False
    seconds = _grace(directory) if grace is None else grace
    if seconds > 0:
        send(process, signal.SIGTERM)
        if wait_for_end(process, seconds):
            return False
    send(process, signal.SIGKILL)
    if not wait_for_end(process, _KILL_SECONDS):
        raise SecbeatError("MACHINE_STUCK", why=f"process {process.pid} of {directory.name} survived SIGKILL")
    return True


def _grace(directory: MachineDir) -> float:
    with suppress(OSError, ValueError, SecbeatError):
        return read_config(directory.config.read_text(encoding="utf-8")).drain_seconds + 10.0
    return _DEFAULT_GRACE
