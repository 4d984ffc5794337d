"""The live view of `up` as what to draw: from what the API says to rows that fit the terminal. Nothing here waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secbeat.cli.durations import format_seconds
from secbeat.cli.output import clean

KEYS = "q or Ctrl-C: local nodes drain and leave, then the services stop"
_MOST_OPERATIONS = 8
_FRAME = 6  # headings, blank lines and the last line
_NARROW = 80  # columns; below, the numbers that matter least are left out
_NUMBERS = ("desired", "actual", "healthy", "pending", "leaving")
_GOOD, _BUSY, _BAD = "green", "yellow", "red"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What the API said a moment ago; ``trouble``: why it says nothing now."""

    pools: Sequence[Row] = ()
    operations: Sequence[Row] = ()
    events: Sequence[Row] = ()
    trouble: str = ""
    happenings: Sequence[str] = field(default_factory=tuple)


def draw(seen: Seen, now: datetime, height: int, width: int = 120) -> Group:
    """The whole view, at most ``height`` lines: pools first, then what is under way, then what happened last."""
    left = max(0, height - _FRAME - (1 if seen.trouble else 0))
    pools = sorted(seen.pools, key=lambda pool: (not _troubled(pool), str(pool["name"])))
    shown_pools = pools[: max(1, left // 2)] if len(pools) > left // 2 else pools
    left -= len(shown_pools)
    operations = list(seen.operations)[: min(_MOST_OPERATIONS, max(0, left // 2))]
    left -= len(operations)
    parts: list[RenderableType] = []
    if seen.trouble:
        parts.append(_line(f"The orchestrator does not answer: {seen.trouble}", _BAD))
    parts += [pool_table(shown_pools, width), *_more(len(pools) - len(shown_pools), "pools"), Text()]
    if seen.operations:
        parts += [operation_table(operations, now, width), *_more(len(seen.operations) - len(operations), "operations")]
    else:
        parts.append(_line("No operation is under way.", "dim"))
    parts += [Text(), *_news(seen, max(0, left)), _line(KEYS, "dim")]
    return Group(*parts)


def pool_table(pools: Iterable[Row], width: int) -> Table:
    """The pools, one row each, with the sentence behind the last decision."""
    headings: tuple[str, ...] = ("pool", *_NUMBERS, "min-max", "cpu", "last decision")
    if width < _NARROW:
        headings = ("pool", "desired", "healthy", "last decision")
    return _table(headings, [_pool_cells(pool) for pool in pools])


def _pool_cells(pool: Row) -> dict[str, Text]:
    desired = "-" if pool.get("desired") is None else str(pool["desired"])
    numbers = (desired, *(str(pool[key]) for key in ("capacity", "active", "pending", "draining")))
    style = _BAD if _troubled(pool) else _GOOD if str(pool["active"]) == desired else _BUSY
    return {
        "pool": Text(clean(pool["name"]), style=style),
        **{name: Text(number) for name, number in zip(_NUMBERS, numbers, strict=True)},
        "min-max": Text(f"{pool['min']}-{pool['max']}"),
        "cpu": Text("-" if pool["cpu"] is None else f"{pool['cpu']:.0%}"),
        "last decision": Text(_why(pool)),
    }


def operation_table(operations: Iterable[Row], now: datetime, width: int) -> Table:
    """What is under way: how far it is, and for how long."""
    headings = ("pool", "age", "stage") if width < _NARROW else ("operation", "pool", "age", "stage")
    return _table(headings, [_operation_cells(one, now) for one in operations])


def _operation_cells(one: Row, now: datetime) -> dict[str, Text]:
    age = format_seconds(max(0.0, (now - datetime.fromisoformat(one["created_at"])).total_seconds()))
    error = one.get("error")
    stage = f": {one['stage']}" if one.get("stage") else ""
    detail = f" ({error['code']}: {error['message']})" if error else ""
    return {
        "operation": Text(clean(one["op_id"])),
        "pool": Text(clean(one["pool"])),
        "age": Text(age),
        "stage": Text(clean(f"{one['action']} {one['state']}{stage}{detail}"), style=_BAD if error else _BUSY),
    }


def _table(headings: Sequence[str], rows: Sequence[Mapping[str, Text]]) -> Table:
    """Only the last column gives way when the terminal is narrow."""
    shown = Table(box=None, pad_edge=False, expand=True)
    for heading in headings[:-1]:
        widest = max(len(heading), *(len(row[heading].plain) for row in rows), 1)
        right = heading in {*_NUMBERS, "min-max", "cpu", "age"}
        shown.add_column(heading, justify="right" if right else "left", no_wrap=True, min_width=min(widest, 26))
    shown.add_column(headings[-1], no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        shown.add_row(*(row[heading] for heading in headings))
    return shown


def _news(seen: Seen, lines: int) -> list[Text]:
    told = [f"{datetime.fromisoformat(one['at']).astimezone():%H:%M:%S}  {one['sentence']}" for one in seen.events]
    merged = sorted([*told, *seen.happenings], key=lambda text: text[:8])
    return [_line(text, "dim") for text in merged[-lines:]] if lines else []


def _line(text: str, style: str) -> Text:
    return Text(clean(text), style=style, no_wrap=True, overflow="ellipsis")


def _more(count: int, what: str) -> list[Text]:
    return [_line(f"and {count} more {what}: secbeat {what}", "dim")] if count > 0 else []


def _troubled(pool: Row) -> bool:
    return bool(pool.get("failed") or (pool.get("breaker") or {}).get("open_since"))


def _why(pool: Row) -> str:
    holds = [name for name in ("pause", "override", "retired") if pool.get(name)]
    if (pool.get("breaker") or {}).get("open_since"):
        holds.append("breaker")
    decision = pool.get("decision")
    sentence = clean(decision["sentence"]) if decision else "no evaluation yet"
    return f"[{', '.join(holds)}] {sentence}" if holds else sentence
