"""Generated pages say what the program does: all of it, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from orchestrator.fleet.lifecycle import TRANSITIONS
from orchestrator.operations import states as operation_states
from scripts.reference import api, commands, environment, exit_codes, links, states
from scripts.reference.__main__ import PAGES
from scripts.reference.documents import documents
from scripts.reference.tables import table
from secbeat import errors
from secbeat.cli.app import _ORDER, secbeat
from tests.docs.pages import ROOT

SOURCES = [
    path for folder in ("secbeat", "orchestrator", "provisioner", "node") for path in (ROOT / folder).rglob("*.py")
]


def test_every_command_has_a_section_with_all_its_options():
    page = commands.page()
    found = dict(commands.walk())
    assert {path.split(" ")[0] for path in found if path} == set(_ORDER)
    for path, command in found.items():
        if not path:
            continue
        section = page.split(f"## secbeat {path}\n", 1)[1].split("\n## ", 1)[0]
        shares = {one.name for one in command.params}.issuperset(commands.SHARED)
        for option in command.params:
            if option.param_type_name == "option" and not (shares and option.name in commands.SHARED):
                assert option.name == "help" or option.opts[-1] in section, (path, option.name)
        assert "Example" not in section
        assert "```sh" in section or "COMMAND" in section, f"{path} has no example"


def test_every_exit_code_that_a_command_can_end_with_is_on_the_page():
    told = {int(code) for code in re.findall(r"(\d+) [a-z]", secbeat.__doc__.partition("Exit codes:")[2])}
    raised = {kind.exit_code for kind in (errors.SecbeatError, *errors.SecbeatError.__subclasses__())}
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", exit_codes.page(), re.MULTILINE)}
    assert told == shown
    assert raised <= shown


def test_every_variable_that_a_program_reads_is_on_the_page():
    text = "\n".join(path.read_text() for path in SOURCES)
    named = set(re.findall(r"\"(SECBEAT_[A-Z]+(?:_[A-Z]+)*)\"", text))
    internal = {"SECBEAT_JOB", "SECBEAT_FORK_SERVER"}  # mark processes of the provisioner; nobody sets them
    assert named - internal <= set(environment.VARIABLES), named - internal - set(environment.VARIABLES)
    for name in environment.VARIABLES:
        assert f'"{name}"' in text, f"nothing reads {name}"


def test_every_route_is_a_section_with_its_statuses_and_scope():
    page = api.page()
    for document in documents().values():
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                sections = [
                    part.split("\n## ", 1)[0] for part in page.split("\n### ")
                    if part.startswith(f"`{method.upper()} {path}`\n")
                ]  # fmt: skip
                statuses = set(operation["responses"])
                assert any(statuses <= set(re.findall(r"^\| (\d{3}) \|", part, re.MULTILINE)) for part in sections)
                if scope := operation.get("x-secbeat-scope"):
                    assert any(f"Scope: **{scope}**" in part for part in sections)


def test_the_documents_have_every_route_that_stands_in_the_code():
    """They are made without starting anything, so they are held against the text of the route tables."""
    known = {path for document in documents().values() for path in document["paths"]}
    sources = [*(ROOT / "orchestrator" / "http").glob("*.py"), *(ROOT / "provisioner" / "http").glob("*.py")]
    named = [
        path
        for source in [*sources, ROOT / "node" / "management.py"]
        for path in re.findall(r'(?:path=|_get\()"(/[^"]*)"', source.read_text())
    ]
    assert len(named) > 20
    assert [path for path in named if openapi_path(path) not in known] == []


def openapi_path(path):
    return re.sub(r"\{(\w+):[^/]*\}", r"{\1}", path)


def test_the_state_diagrams_have_every_state_and_the_tables_every_transition():
    page = states.page()
    for state, targets in TRANSITIONS.items():
        assert f">{state}</text>" in page
        row = next(line for line in page.splitlines() if line.startswith(f"| `{state}` |") and line.count("|") == 4)
        assert set(re.findall(r"`(\w+)`", row.split("|")[3])) == set(targets)
    for after in (operation_states._CREATE, operation_states._DESTROY):
        for state, targets in after.items():
            for target in targets:
                assert f"<title>{state} to {target}</title>" in page


@pytest.mark.parametrize(
    ("table_", "story"),
    [
        ({"queued": frozenset({"running", "lost"})}, None),  # the code has a state that the drawing lacks
        (states.JOBS, [("queued", "succeeded")]),  # the drawing has an arrow that the code lacks
    ],
)
def test_a_drawing_that_no_longer_fits_the_code_stops_the_build(table_, story):
    with pytest.raises(ValueError, match="Jobs"):
        states.drawn("Jobs", states.JOB_CELLS, table_, story=story)


def test_a_changed_transition_changes_the_page(monkeypatch):
    before = states.page()
    monkeypatch.setitem(TRANSITIONS, "terminating", frozenset({"gone"}))
    assert states.page() != before


def test_external_links_are_listed_with_their_pages_and_code_is_left_out(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("See [a](https://a.example/x) and `[b](https://b.example)`.\n")
    (tmp_path / "docs" / "p.md").write_text("<https://c.example>\n\n```sh\n[d](https://d.example)\n```\n")
    assert links.found(tmp_path) == {"https://a.example/x": ["README.md"], "https://c.example": ["docs/p.md"]}


def test_a_table_keeps_its_cells_apart():
    assert table(["a", "b"], [("x|y", "two\nlines")]) == "| a | b |\n| --- | --- |\n| x\\|y | two lines |\n"
    assert table(["a"], []) == ""


def test_generated_pages_are_made_at_every_build_and_kept_out_of_git():
    assert "docs/reference/*.md" in (ROOT / ".gitignore").read_text().splitlines()
    assert "python -m scripts.reference" in (ROOT / "scripts" / "docs.sh").read_text()
    assert set(PAGES) >= {"configuration", "codes", "commands", "exit-codes", "environment", "api", "states", "metrics"}


def test_the_layout_page_names_every_folder():
    text = (ROOT / "docs" / "layout.md").read_text()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    for package in packages:
        for path in sorted((ROOT / package).iterdir()):
            if path.is_dir() and (path / "__init__.py").exists():
                assert f"`{package}/{path.name}/`" in text, f"docs/layout.md does not name {package}/{path.name}/"
    for named in re.findall(r"`([a-z_/]+/)`", text):
        assert Path(ROOT / named).is_dir(), f"docs/layout.md names {named}, which is not there"
