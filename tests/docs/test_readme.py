"""What the README shows of the program is what the program says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.explaining import Situation, why_pool
from orchestrator.scaling import History, decide
from secbeat.cli.explaining import _pool_lines
from secbeat.settings import load
from secbeat.wire.decisions import PoolSnapshot
from secbeat.wire.pools import PoolRecord
from tests.docs.pages import ROOT, blocks

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def shown(path: Path):
    """The command's answer in the situation that the README tells of: its own configuration, one busy check."""
    (toml,) = (block for block in blocks(ROOT / "README.md") if block.language == "toml")
    path.write_text(toml.text)
    policy = load(path, environ={}).settings.pools["web"]
    busy = PoolSnapshot(pool="web", active=2, fresh=2, cpu=0.91, memory=0.4, connections=57)
    decision = decide(policy, History(), busy, NOW)
    why = why_pool("web", decision, Situation(policy=policy, record=PoolRecord(name="web"), file=path, pid=42))
    return _pool_lines(json.loads(why.model_dump_json()), NOW)


def test_the_answer_of_why_is_what_why_answers(tmp_path):
    (sample,) = (block for block in blocks(ROOT / "README.md") if block.language == "console")
    command, *lines = sample.text.splitlines()
    assert command == "$ secbeat why web"
    said = shown(tmp_path / "fleet.toml")
    assert lines == [line for line in said if re.match(r"web:|  (fix|load|checks|more):", line)], "\n".join(said)


def test_no_figure_is_quoted_that_no_bench_has_measured():
    """Figures belong into docs/evidence/, with machine and commit; until there are some, the README quotes none."""
    text = (ROOT / "README.md").read_text()
    figures = re.findall(r"\d[\d,.]* ?(?:ms|µs|MB|MiB|GB|requests|heartbeats|/s)\b", text)
    assert figures == []


def test_every_page_that_the_readme_names_exists():
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
    assert len(links) > 10
