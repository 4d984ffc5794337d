"""The build refuses what would be a dead end for a reader."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.docs.pages import ROOT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x](other.md#no-such-place)", "no-such-place"),
        ("[x](nowhere.md)", "nowhere"),
        ("[x](#not-here)", "not-here"),
    ],
)
def test_a_broken_link_or_anchor_stops_the_build(tmp_path, text, said):
    (tmp_path / "conf.py").write_text((ROOT / "docs" / "conf.py").read_text())
    (tmp_path / "index.md").write_text(f"# Start\n\n{text}\n\n```{{toctree}}\nother\n```\n")
    (tmp_path / "other.md").write_text("# Other\n\n## A place\n")
    done = build(tmp_path)
    assert done.returncode != 0
    assert said in done.stderr


def test_right_links_and_anchors_build(tmp_path):
    (tmp_path / "conf.py").write_text((ROOT / "docs" / "conf.py").read_text())
    (tmp_path / "index.md").write_text("# Start\n\n[x](other.md#a-place)\n\n```{toctree}\nother\n```\n")
    (tmp_path / "other.md").write_text("# Other\n\n## A place\n")
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr


def build(directory):
    """As scripts/docs.sh does it; the simplest builder reads and resolves the same."""
    options = [
        option
        for option in (ROOT / "scripts" / "docs.sh").read_text().split()
        if option in {"-W", "--keep-going", "-q"}
    ]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "dummy", *options, str(directory), str(directory / "out")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
