"""Write the table of contract rows, with the results of a run, into docs/compatibility.md.

    python -m tests.contract.table

runs the contract tests and replaces what stands between the two markers. ``test_table.py`` fails while the page does
not show the rows and the tests that there are, all of them passed.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import pytest

from tests.contract.rows import DIRECTIONS, ROWS, Row

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "compatibility.md"
BEGIN, END = "<!-- rows: begin (python -m tests.contract.table) -->", "<!-- rows: end -->"
_HEAD = "| Row | The original | Who speaks | Ours | Result |\n| --- | --- | --- | --- | --- |"
_OURS = {"now": "the same", "later": "**not yet**: ", "overridden": "**differs**: "}
_TITLES = {"guide": "The guide"}


class Outcomes:
    """A pytest plugin: the outcomes of each row's tests."""

    def __init__(self) -> None:
        self.by_row: dict[str, list[str]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            for name, value in report.user_properties:
                if name == "row":
                    self.by_row[str(value)].append(report.outcome)


def results(outcomes: Mapping[str, list[str]]) -> dict[str, str]:
    """What the table says of each row."""
    return {row.id: _result(outcomes.get(row.id, [])) for row in ROWS}


def _result(outcomes: list[str]) -> str:
    if not outcomes:
        return "no test"
    bad = [outcome for outcome in outcomes if outcome != "passed"]
    if bad:
        return f"{bad[0]}, {len(bad)} of {len(outcomes)}"
    return "passes" if len(outcomes) == 1 else f"passes, {len(outcomes)} tests"


def render(found: Mapping[str, str]) -> str:
    """The table, with its markers."""
    parts = [BEGIN]
    for section, rows in groupby(ROWS, key=lambda row: (row.section, row.title)):
        title = _TITLES.get(section[0], f"Section {section[0]}: {section[1]}")
        parts.append(f"### {title}\n\n{_HEAD}\n" + "\n".join(_line(row, found[row.id]) for row in rows))
    return "\n\n".join([*parts, END])


def _line(row: Row, result: str) -> str:
    cells = [f"`{row.section}.{row.name}`", row.text, DIRECTIONS[row.direction], _OURS[row.status] + row.ours, result]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def replaced(page: str, table: str) -> str:
    """The page with the table in the place of the one that it has.

    Raises:
        ValueError: the page lacks the markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: the markers are missing")
    return before + table + after


def main() -> int:
    """Run, write; 1 when a row has no test or a test does not pass."""
    outcomes = Outcomes()
    ignored = f"--ignore={HERE / 'test_table.py'}"
    pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(HERE.parents[1]), ignored, str(HERE)], [outcomes])
    found = results(outcomes.by_row)
    PAGE.write_text(replaced(PAGE.read_text(), render(found)))
    bad = {row_id: result for row_id, result in found.items() if not result.startswith("passes")}
    for row_id, result in bad.items():
        sys.stderr.write(f"{row_id}: {result}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
