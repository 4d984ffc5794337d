"""The one output layer: data on standard output in the asked format, everything else on standard error.

Colour appears only on a terminal whose user did not switch it off (NO_COLOR, TERM=dumb). What comes from a service is
data: control characters in it never reach the terminal.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TextIO

from secbeat.errors import SecbeatError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_COLOURS = {
    "green": ("active", "succeeded", "ok", "up"),
    "yellow": ("draining", "terminating", "warn", "pending", "running", "joining", "booting", "paused", "down"),
    "red": ("failed", "unreachable", "needs_operator", "fail", "quarantined", "replace"),
}
_ESCAPES = {"green": "\x1b[32m", "yellow": "\x1b[33m", "red": "\x1b[31m", "bold": "\x1b[1m"}
_COLOUR_OF = {word: colour for colour, words in _COLOURS.items() for word in words}

Row = Mapping[str, Any]


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its title and what it shows of a row."""

    title: str
    show: Callable[[Row], object]
    right: bool = False


def clean(value: object) -> str:
    """``value`` as one line without control characters; ``-`` for nothing."""
    text = "-" if value is None or value == "" else str(value)
    return _CONTROL.sub(" ", text)


def use_colour(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that wants colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def note(text: str) -> None:
    """A line for the person, on standard error."""
    print(text, file=sys.stderr, flush=True)


def print_error(error: SecbeatError) -> None:
    """The error's lines on standard error, its first line red on a terminal."""
    first, *rest = (clean(line) if line.strip() else line for line in error.lines())
    if use_colour(sys.stderr):
        first = f"{_ESCAPES['red']}{first}\x1b[0m"
    print("\n".join([first, *rest]), file=sys.stderr, flush=True)


class Output:
    """Standard output in one format."""

    def __init__(self, chosen: Format) -> None:
        self.format = chosen

    def rows(self, items: Sequence[Row], columns: Sequence[Column], *, empty: str) -> None:
        """A list: a table, or the items as they are. ``empty`` is said, on standard error, when there is none."""
        if self.format is not Format.TABLE:
            self._dump(list(items))
        elif items:
            for line in table(items, columns, colour=use_colour(sys.stdout), width=_width()):
                _write(line)
        else:
            note(empty)

    def record(self, item: Row, *, sentence: str | None = None) -> None:
        """One object: its keys and values; ``sentence`` above them in the table format."""
        if self.format is not Format.TABLE:
            self._dump(item)
            return
        if sentence:
            _write(clean(sentence))
            _write("")
        pairs = list(_flat(item))
        wide = max((len(key) for key, _ in pairs), default=0)
        for key, value in pairs:
            _write(f"{key:<{wide}}  {clean(value)}".rstrip())

    def stream(self, item: Row, line: str) -> None:
        """One of a series: a JSON object per line, a YAML document, or ``line``."""
        if self.format is Format.JSON:
            _write(json.dumps(item, ensure_ascii=False))
        elif self.format is Format.YAML:
            _write(f"---\n{_yaml(item)}".rstrip())
        else:
            _write(clean(line))
        sys.stdout.flush()

    def text(self, lines: Iterable[str], data: Row) -> None:
        """Prose in the table format, ``data`` in the others."""
        if self.format is not Format.TABLE:
            self._dump(data)
            return
        for line in lines:
            _write(line)

    def _dump(self, data: object) -> None:
        if self.format is Format.JSON:
            _write(json.dumps(data, indent=2, ensure_ascii=False))
        else:
            _write(_yaml(data).rstrip())


def _write(line: str) -> None:
    print(line)


def _yaml(data: object) -> str:
    import yaml

    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(items: Sequence[Row], columns: Sequence[Column], *, colour: bool, width: int | None) -> list[str]:
    """The lines of a table; with a ``width``, the last column is cut so that a row stays on one line."""
    cells = [[clean(column.show(item)) for column in columns] for item in items]
    widths = [max(len(column.title), *(len(row[i]) for row in cells)) for i, column in enumerate(columns)]
    left = None if width is None else max(10, width - sum(widths[:-1]) - 2 * (len(columns) - 1))
    lines = [_line([column.title for column in columns], columns, widths, left, bold=colour)]
    lines += [_line(row, columns, widths, left, words=colour) for row in cells]
    return lines


def _line(
    row: Sequence[str],
    columns: Sequence[Column],
    widths: Sequence[int],
    left: int | None,
    *,
    bold: bool = False,
    words: bool = False,
) -> str:
    parts = []
    for i, (text, column) in enumerate(zip(row, columns, strict=True)):
        last = i == len(columns) - 1
        shown = text if not last or left is None or len(text) <= left else f"{text[: left - 1]}…"
        padded = shown.rjust(widths[i]) if column.right else shown if last else shown.ljust(widths[i])
        code = _ESCAPES["bold"] if bold else _ESCAPES.get(_COLOUR_OF.get(text, "")) if words else None
        parts.append(f"{code}{padded}\x1b[0m" if code else padded)
    return "  ".join(parts).rstrip()


def _flat(item: Row, prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in item.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, inner in enumerate(value):
                yield from _flat(inner, f"{name}.{number}.")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(str(part) for part in value)
        elif isinstance(value, Mapping):
            yield name, None
        else:
            yield name, str(value).lower() if isinstance(value, bool) else value
