"""Who runs a job: a process of one host, told apart from a later process with the same number."""

from __future__ import annotations

import os
import socket

import psutil


def this_process() -> str:
    """``host:pid:start``; ``start`` is the process's start time in hundredths of a second since the epoch."""
    return f"{_host()}:{os.getpid()}:{_start(os.getpid())}"


def alive(owner: str) -> bool | None:
    """Whether ``owner`` still runs; None where that cannot be seen from here (another host)."""
    parts = owner.rsplit(":", 2)
    if len(parts) != 3 or parts[0] != _host():
        return None
    try:
        return str(_start(int(parts[1]))) == parts[2]
    except (psutil.Error, ValueError):
        return False


def _host() -> str:
    return socket.gethostname() or "localhost"


def _start(pid: int) -> int:
    return round(psutil.Process(pid).create_time() * 100)
