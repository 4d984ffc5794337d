"""CI runs every test that there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_folder_of_tests_has_its_step():
    steps = (ROOT / "scripts/check.sh").read_text()
    named = set(re.findall(r"tests/(\w+)", "\n".join(line for line in steps.splitlines() if "${pytest[@]}" in line)))
    assert named == {path.relative_to(ROOT / "tests").parts[0] for path in ROOT.glob("tests/*/**/test_*.py")}
