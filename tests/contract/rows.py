"""The table of contract rows, read from ``rows.md``: what the suite must test, and what docs/compatibility.md shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("rows.md")

DIRECTIONS = {
    "from-node": "original node → our orchestrator",
    "to-node": "our orchestrator → original node",
    "from-orchestrator": "original orchestrator → ours",
    "to-orchestrator": "our node → original orchestrator",
    "to-receiver": "our orchestrator → original receiver",
    "from-client": "an operator's client or scraper → ours",
}
"""Who speaks to whom; an answer belongs to the direction of its request."""

STATUSES = ("now", "later", "overridden")
"""``now``: as the original has it. ``later``: absent, and says so. ``overridden``: ours does something else."""

_NAME = re.compile(r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")


@dataclass(frozen=True)
class Row:
    """One row: what the original does, and, where ours differs, what ours does and by which rule."""

    section: str
    title: str
    name: str
    direction: str
    status: str
    text: str
    ours: str

    @property
    def id(self) -> str:
        return f"{self.section}.{self.name}.{self.direction}"


def read(text: str) -> list[Row]:
    """The rows of a table in Markdown; sections are headings ``## number title``.

    Raises:
        ValueError: a malformed or repeated row.
    """
    rows: list[Row] = []
    section = title = ""
    for line in text.splitlines():
        if line.startswith("## "):
            section, _, title = line.removeprefix("## ").partition(" ")
        elif line.startswith("| ") and not line.startswith(("| name ", "| --- ")):
            rows.append(_row(section, title, line))
    ids = [row.id for row in rows]
    if len(set(ids)) != len(ids):
        raise ValueError(f"repeated: {sorted({one for one in ids if ids.count(one) > 1})}")
    return rows


def _row(section: str, title: str, line: str) -> Row:
    cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    if len(cells) != 5:
        raise ValueError(f"not five cells: {line}")
    name, direction, status, text, ours = cells
    if not _NAME.match(name) or direction not in DIRECTIONS or status not in STATUSES:
        raise ValueError(f"name, direction or status: {line}")
    if not text or (status == "now") == bool(ours):
        raise ValueError(f"a row 'now' has an empty last cell, the others say what ours does: {line}")
    return Row(section, title, name, direction, status, text, ours)


ROWS = read(TABLE.read_text())
BY_ID = {row.id: row for row in ROWS}
