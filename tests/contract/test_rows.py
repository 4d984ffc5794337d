"""The suite's own rule: every row has a test."""

from __future__ import annotations

import pytest

from tests.contract.conftest import COVERED, WHOLE
from tests.contract.rows import BY_ID, read

HEAD = "## 4 API\n\n| name | direction | status | text | ours |\n| --- | --- | --- | --- | --- |\n"


def test_every_row_has_a_test(request):
    if not request.config.stash[WHOLE]:
        pytest.skip("only a part of tests/contract was collected")
    assert sorted(BY_ID.keys() - request.config.stash[COVERED].keys()) == []


def test_a_row_is_named_by_section_name_and_direction():
    (row,) = read(f"{HEAD}| a.b | from-node | later | a \\| b | 501 |\n")
    assert (row.id, row.title, row.text, row.ours) == ("4.a.b.from-node", "API", "a | b", "501")


@pytest.mark.parametrize(
    "line",
    [
        "| a | sideways | now | text | |",
        "| a | from-node | soon | text | |",
        "| A | from-node | now | text | |",
        "| a | from-node | now | | |",
        "| a | from-node | now | text | but differs |",
        "| a | from-node | overridden | text | |",
        "| a | from-node | now | text |",
        "| a | from-node | now | text | |\n| a | from-node | now | again | |",
    ],
)
def test_a_malformed_row_is_refused(line):
    with pytest.raises(ValueError):
        read(f"{HEAD}{line}\n")
