"""Which process a pid file means: the pid, and when that process started, so that a reused pid is never signalled."""

from __future__ import annotations

import json
import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from provisioner.local.files import write_whole

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of this computer.

    ``started`` is seconds since the epoch, as psutil's ``create_time`` has it. It moves when the wall clock is set, so
    comparisons go by ``ticks`` (start in clock ticks since boot) and ``boot`` (the kernel's boot id).
    """

    pid: int
    started: float
    ticks: int
    boot: str

    @property
    def running(self) -> bool:
        """Whether this very process still runs; one that waits to be reaped does not."""
        found = _stat(self.pid)
        return found is not None and found == self.ticks and _boot_id() == self.boot


def identify(pid: int) -> Identity | None:
    """The identity of a running process, or None."""
    ticks = _stat(pid)
    return None if ticks is None else Identity(pid, _boot_time() + ticks / _TICKS, ticks, _boot_id())


def write_pid_file(path: Path, pid: int) -> None:
    """Record the running process ``pid``."""
    identity = identify(pid)
    if identity is None:
        raise ProcessLookupError(pid)
    write_whole(path, json.dumps(asdict(identity)) + "\n")


def read_pid_file(path: Path) -> Identity | None:
    """Whom a pid file means; None if there is none or it makes no sense.

    Raises:
        OSError: it is there but cannot be read.
    """
    try:
        return Identity(**json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):
        return None


def wait_for_end(identity: Identity, seconds: float) -> bool:
    """Wait until the process is gone, at most ``seconds``; True if it is."""
    handle = _open(identity)
    if handle is None:
        return True
    try:
        return bool(select.select([handle], [], [], max(0.0, seconds))[0])
    finally:
        os.close(handle)


def send(identity: Identity, number: signal.Signals) -> None:
    """Signal exactly this process; one that is gone is no error."""
    handle = _open(identity)
    if handle is None:
        return
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _open(identity: Identity) -> int | None:
    # The pid may have been reused before the handle was opened, but not after: so open first, then compare.
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if identity.running:
        return handle
    os.close(handle)
    return None


def _stat(pid: int) -> int | None:
    """The start time of a running process, in clock ticks since boot."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the program's name may hold blanks and parentheses
    state, ticks = fields[0], int(fields[19])
    return None if state in "ZX" else ticks


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise OSError("/proc/stat has no btime")
