"""The nats-server program: where it is, how it is run, what it said last."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sysconfig
from io import TextIOWrapper
from pathlib import Path

from secbeat.errors import ConfigError

_PR_SET_PDEATHSIG = 1


def find_binary() -> Path:
    """The nats-server program: of this Python environment, else of PATH.

    Raises:
        ConfigError: there is none (NATS_BINARY_MISSING).
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    if os.access(beside, os.X_OK):
        return beside
    if found := shutil.which("nats-server"):
        return Path(found)
    raise ConfigError("NATS_BINARY_MISSING", why=f"neither {beside} nor a nats-server on PATH exists")


async def spawn(binary: Path, config: Path, lock: TextIOWrapper | None, output: Path) -> asyncio.subprocess.Process:
    """Run the program; it ends with this process, however this process ends.

    Args:
        binary: the program.
        config: its configuration file; nothing else stands in its arguments.
        lock: an open lock file that the child is to hold as well.
        output: gets what it prints before its own log is open.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    with output.open("wb") as sink:
        return await asyncio.create_subprocess_exec(
            binary,
            "-c",
            config,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            # The child keeps the lock after a kill -9 of its parent, until it has closed the store.
            pass_fds=() if lock is None else (lock.fileno(),),
            start_new_session=True,  # Ctrl-C in the terminal stops the parent, which stops the server last
            preexec_fn=die_with_parent,  # two system calls, nothing that could wait for a lock of another thread
        )


def tail(log: Path, start: int) -> str:
    """The last complaint in a log, on one line."""
    try:
        text = log.read_bytes()[start:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if "[FTL]" in line or "[ERR]" in line] or lines
    return lines[-1].split("] ", 2)[-1].strip() if lines else ""
