"""docs/compatibility.md shows the rows and the tests that there are."""

from __future__ import annotations

import pytest

from tests.contract.conftest import COVERED, WHOLE
from tests.contract.rows import ROWS
from tests.contract.table import PAGE, Outcomes, render, replaced, results


def test_the_page_shows_every_row_with_its_result(request):
    if not request.config.stash[WHOLE]:
        pytest.skip("only a part of tests/contract was collected")
    tests = request.config.stash[COVERED]
    table = render(results({row_id: ["passed"] * len(ids) for row_id, ids in tests.items()}))
    page = PAGE.read_text()
    assert page == replaced(page, table), "write it anew: python -m tests.contract.table"


def test_a_failed_test_is_shown_as_such():
    row_id = ROWS[0].id
    found = results({row_id: ["passed", "failed"]})
    assert (found[row_id], found[ROWS[1].id]) == ("failed, 1 of 2", "no test")
    assert "| failed, 1 of 2 |" in render(found)


def test_outcomes_are_those_of_the_rows_tests():
    class Report:
        when, outcome, user_properties = "call", "passed", [("row", "x"), ("other", "y")]

    outcomes = Outcomes()
    outcomes.pytest_runtest_logreport(Report())
    Report.when = "setup"
    outcomes.pytest_runtest_logreport(Report())
    Report.outcome = "failed"
    outcomes.pytest_runtest_logreport(Report())
    assert outcomes.by_row == {"x": ["passed", "failed"]}


def test_a_page_without_its_markers_is_not_overwritten():
    with pytest.raises(ValueError, match="markers"):
        replaced("# A page", "table")
