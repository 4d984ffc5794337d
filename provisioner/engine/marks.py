"""Whose process is that: every process of a job carries a mark in its environment.

Parentage is not enough. Ansible's workers call ``setsid``, and a job process that was killed with -9 leaves its
``ansible-playbook`` (which ignores SIGHUP under ansible-runner) behind with init as its parent. The environment is
inherited through all of that. The mark is the job, a slash and the attempt: what an old attempt's process still sweeps
on its way out is never a newer attempt. A process that is meant to outlive its job drops the variable. (The job process
itself is a fork without an exec, so it does not carry the mark; the fork server knows it as its child.)
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

import psutil

from provisioner.engine import presence

MARK = "SECBEAT_JOB"


def marked(job: str) -> list[psutil.Process]:
    """Every process of this user marked with ``job``, or with any attempt of it, except the calling one."""
    return _with(MARK, lambda mark: mark == job or mark.startswith(f"{job}/"))


def count(job: str) -> int:
    """How many processes of ``job`` run."""
    return len(marked(job))


def servers(presence_file: str) -> list[psutil.Process]:
    """Fork servers that hold this file, and the job processes that they have forked."""
    return _with(presence.MARK, lambda mark: mark == presence_file)


def _with(name: str, wanted: Callable[[str], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            mark = process.environ().get(name)
            if mark is not None and process.status() != psutil.STATUS_ZOMBIE and wanted(mark):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's
    return found


def end(processes: Iterable[psutil.Process]) -> int:
    """SIGKILL each that still runs; psutil compares start times, so a reused pid is safe. Returns how many."""
    count = 0
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue
        count += 1
    return count


def sweep(job: str, *, rounds: int = 5) -> int:
    """End everything marked with ``job``; repeated, because a process may fork between the look and the signal."""
    total = 0
    for _ in range(rounds):
        found = marked(job)
        if not found:
            break
        total += end(found)
        psutil.wait_procs(found, timeout=1.0)
    return total
