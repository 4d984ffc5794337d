"""The catalogue is complete: every code that is used exists once, and says what to do."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from secbeat import catalogue

ROOT = Path(__file__).parents[4]
PACKAGES = ("secbeat", "orchestrator", "node", "provisioner")
CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
# Functions and classes whose first argument is a code, whatever they are imported as.
TAKES_A_CODE = {
    "SecbeatError", "ConfigError", "RefusedError", "AuthError", "UnreachableError", "WaitTimeoutError",
    "Missing", "ApiError", "fail", "lookup",
}  # fmt: skip
CODE_KEYWORDS = {"code", "reason", "blocked_by"}
MODULES = ("api", "command", "instance", "node", "operating", "provisioning", "scaling", "setup")


def sources() -> list[Path]:
    return [
        path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if "_bundle" not in path.parts
    ]


def used_codes(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [node.args[0]] if name in TAKES_A_CODE and node.args else []
        given += [keyword.value for keyword in node.keywords if keyword.arg in CODE_KEYWORDS]
        for value in given:
            yield from literals(value)


def literals(value: ast.expr) -> Iterator[tuple[int, str]]:
    """String constants that an expression can have as its value: of ``"A"`` and of ``"A" if x else "B"``."""
    if isinstance(value, ast.IfExp):
        yield from literals(value.body)
        yield from literals(value.orelse)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str) and CODE.fullmatch(value.value):
        yield value.lineno, value.value


def test_every_code_that_is_used_is_in_the_catalogue():
    unknown = [
        f"{path.relative_to(ROOT)}:{line}: {code}"
        for path in sources()
        for line, code in used_codes(path)
        if code not in catalogue.ALL
    ]
    assert unknown == []


def test_the_search_for_used_codes_finds_them():
    found = {code for path in sources() for _, code in used_codes(path)}
    assert {"CONFIG_INVALID", "STATE_NEWER", "SIGNATURE_INVALID", "HOST_REFUSED", "WAIT_TIMED_OUT"} <= found


def test_a_code_stands_in_one_module_only():
    areas = {name: import_module(f"secbeat.catalogue.{name}").ENTRIES for name in MODULES}
    count = Counter(entry.code for entries in areas.values() for entry in entries)
    assert [code for code, times in count.items() if times > 1] == []
    assert set(count) == set(catalogue.ALL)


def test_every_module_of_the_catalogue_is_known_here():
    folder = ROOT / "secbeat" / "catalogue"
    present = {path.stem for path in folder.glob("*.py") if re.search(r"^ENTRIES\b", path.read_text(), re.MULTILINE)}
    assert present == set(MODULES)


@pytest.mark.parametrize("code", sorted(catalogue.ALL))
def test_an_entry_says_what_it_is_how_one_gets_there_and_what_to_do(code):
    entry = catalogue.lookup(code)
    assert CODE.fullmatch(entry.code)
    assert entry.kind in {"error", "reason"}
    for text in (entry.title, entry.cause, entry.remedy):
        assert text == text.strip()
        assert len(text) >= 10
        assert "TODO" not in text
        assert "\n" not in text
    assert entry.cause != entry.title
    assert not entry.title.endswith(".")


@pytest.mark.parametrize(
    "code",
    ["HIGH_FLEET_CPU_LOAD", "LOW_FLEET_CPU_LOAD", "UNEXPECTED_NODE_FAILURE", "BELOW_MIN_FLEET_SIZE"],
)
def test_the_contracts_reasons_are_explained(code):
    assert catalogue.lookup(code).kind == "reason"


def test_every_code_is_named_by_a_test_of_what_raises_it():
    here = Path(__file__).resolve()
    words = Counter()
    for path in (ROOT / "tests").rglob("*.py"):
        if path.resolve() != here:
            words.update(set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\b[A-Z]{4,}\b", path.read_text())))
    unnamed = {code for code in catalogue.ALL if not words[code]}
    assert unnamed == set(), "a code without a test of the behaviour behind it"


def test_every_code_has_an_anchor_in_the_reference_of_the_documentation():
    from secbeat.catalogue.reference import anchor, page

    text = page()
    headings = re.findall(r"^### (\S+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(catalogue.ALL)
    for code in catalogue.ALL:
        assert anchor(code) == f"reference/codes.html#{code.lower().replace('_', '-')}"


def test_a_code_that_another_program_made_is_known_to_be_undocumented():
    assert catalogue.FOREIGN
    assert not set(catalogue.FOREIGN) & set(catalogue.ALL)
    assert all(CODE.fullmatch(code) and len(where) > 10 for code, where in catalogue.FOREIGN.items())
