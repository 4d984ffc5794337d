"""Memory in use as a fraction: of the control group's limit where there is one, else of the machine."""

from __future__ import annotations

from pathlib import Path

import psutil

from node.load.cpu import CGROUPS, own_group


def memory_in_use(root: Path = CGROUPS, proc: Path = Path("/proc/self/cgroup")) -> float:
    """Fraction, 0 to 1. Of a control group, the page cache that can be dropped is not in use."""
    machine = psutil.virtual_memory()
    group = own_group(root, proc)
    limit = _number(group / "memory.max") if group else None
    if group is None or limit is None or limit >= machine.total:
        return _fraction(machine.total - machine.available, machine.total)
    current = _number(group / "memory.current") or 0
    return _fraction(current - _inactive_file(group), limit)


def _fraction(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole else 0.0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # absent, or the word "max"


def _inactive_file(group: Path) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
