"""CPU use as a fraction of what this node may use, from two readings of counters.

Three meters: a process tree against an allowance of cores, a control group against its quota, the whole machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds ``used``, and those that were ``available`` (wall time times cores); both only grow."""

    used: float
    available: float


class Meter(Protocol):
    """Something that counts CPU seconds."""

    def read(self, wall: float) -> Reading:
        """The counters at monotonic time ``wall``."""
        ...


def use_between(first: Reading, second: Reading) -> float | None:
    """The fraction in use between two readings, 0 to 1; None when no time has passed."""
    available = second.available - first.available
    if available <= 0:
        return None
    return min(1.0, max(0.0, (second.used - first.used) / available))


class ProcessTreeMeter:
    """This process and its descendants against an allowance of cores.

    What a descendant has used stays counted after its end.

    Args:
        beside: ids of processes that count as well, though another process may have started them.
    """

    def __init__(
        self, allowance: float, *, pid: int | None = None, beside: Callable[[], Iterable[int]] = tuple
    ) -> None:
        self._allowance, self._beside = allowance, beside
        self._root = psutil.Process(pid)
        self._seen: dict[psutil.Process, float] = {}
        self._ended = 0.0

    def read(self, wall: float) -> Reading:
        now: dict[psutil.Process, float] = {}
        for process in self._tree():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            now[process] = times.user + times.system
        self._ended += sum(used for process, used in self._seen.items() if process not in now)
        self._seen = now
        return Reading(self._ended + sum(now.values()), wall * self._allowance)

    def _tree(self) -> set[psutil.Process]:
        found = {self._root}
        with suppress(psutil.Error):
            found.update(self._root.children(recursive=True))
        for pid in self._beside():
            with suppress(psutil.Error):
                found.add(psutil.Process(pid))
        return found


class CgroupMeter:
    """A control group (version 2) against its CPU quota."""

    def __init__(self, directory: Path, cores: float) -> None:
        self._stat = directory / "cpu.stat"
        self._cores = cores

    def read(self, wall: float) -> Reading:
        fields = dict(line.split(maxsplit=1) for line in self._stat.read_text().splitlines())
        return Reading(int(fields["usage_usec"]) / 1e6, wall * self._cores)


class MachineMeter:
    """All cores of the machine."""

    def read(self, wall: float) -> Reading:  # noqa: ARG002 - the kernel counts the available seconds itself
        times = psutil.cpu_times()
        # guest is part of user, guest_nice of nice: counting them again would make the machine larger than it is
        total = (
            times.user + times.nice + times.system + times.idle + times.iowait + times.irq + times.softirq + times.steal
        )
        return Reading(total - times.idle - times.iowait, total)


def meter(
    allowance: float | None,
    *,
    beside: Callable[[], Iterable[int]] = tuple,
    root: Path = CGROUPS,
    proc: Path = Path("/proc/self/cgroup"),
) -> Meter:
    """The meter for this process: by allowance if one is set, else by the tightest quota, else the machine."""
    if allowance is not None:
        return ProcessTreeMeter(allowance, beside=beside)
    if limit := _tightest(root, proc):
        return CgroupMeter(*limit)
    return MachineMeter()


def own_group(root: Path = CGROUPS, proc: Path = Path("/proc/self/cgroup")) -> Path | None:
    """This process's control group (version 2), or None where there is none."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    return None if own is None else root / own.lstrip("/")


def _tightest(root: Path, proc: Path) -> tuple[Path, float] | None:
    group = own_group(root, proc)
    found: tuple[Path, float] | None = None
    while group is not None and group.is_relative_to(root):
        cores = _quota(group)
        if cores is not None and (found is None or cores < found[1]) and (group / "cpu.stat").is_file():
            found = (group, cores)
        group = group.parent if group != root else None
    return found


def _quota(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
