"""The first pages that people meet, followed to the letter: the quickstart and the README's first steps.

In a file of its own, at the end of the alphabet, so that the two long tests of this folder run side by side.
"""

from __future__ import annotations

import pytest

from tests.docs.pages import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.needs_curl, pytest.mark.timeout(300)]

INSTALL = "python3 -m venv ~/secbeat && ~/secbeat/bin/pip install '.[all]'"


def test_the_quickstart_works_as_it_stands(reader):
    reader.follow(
        ROOT / "docs" / "quickstart.md",
        replaced={INSTALL: None},
    )
    assert not (reader.state_home / "secbeat" / "run.json").exists(), "it has stopped in order"
    assert not list((reader.state_home / "secbeat" / "machines").iterdir()), "no local node is left"


def test_the_first_steps_of_the_readme_work_as_they_stand(reader):
    reader.follow(ROOT / "README.md", replaced={"make demo": None, INSTALL: None})
    makefile = (ROOT / "Makefile").read_text()
    assert "\ndemo: venv" in makefile, "the demo itself is run by tests/acceptance/demo"
    assert "@$(bin)/secbeat demo $(ARGS)" in makefile
