"""Every example in the documentation is one that works: parsed, validated, held against the programs themselves."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml

from scripts.reference.documents import documents
from secbeat import catalogue
from secbeat.api import openapi
from secbeat.cli.app import app
from secbeat.settings import load
from secbeat.settings.environment import variables
from tests.docs.pages import ROOT, all_blocks, commands, pages

SHELL = ("sh", "bash")
KNOWN = {
    "console",
    *SHELL,
    "toml",
    "json",
    "yaml",
    "python",
    "ini",
    "text",
    "{toctree}",
    "{include}",
    "{raw}",
    "http",
    "rust",
    "promql",
}
_SECBEAT = re.compile(r"(?:^|[;&|(]\s*|\s(?:env|sudo)\s)(?:[A-Z_]+=\S+\s+)*(?:\S*/)?secbeat(?= |$)([^;&|)]*)")
_INLINE = re.compile(r"`secbeat ([a-z][^`]*)`")
_CURL = re.compile(
    r"curl\b(?P<words>[^|;]*?)'?(?P<scheme>https?)://(?P<host>127[.\d]+|localhost|\[::1\]):(?P<port>\d+)(?P<path>/[^\s'\"?]*)?"
)
_PORTS = {"3030": "orchestrator", "8000": "provisioner", "9999": "node"}
_PLACEHOLDERS = {"N": "3", "D": "5m", "TIME": "15m", "SEQ": "0"}


def named(block):
    return str(block)


def secbeat_lines() -> list[tuple[str, str]]:
    """Every (place, words after ``secbeat``) in shell blocks."""
    return [
        (str(block), match[1])
        for block in all_blocks(*SHELL)
        for line in commands(block)
        for match in _SECBEAT.finditer(line)
    ]


@cache
def root():
    return typer.main.get_command(app)


def parsed(words: list[str], *, arity: bool = True) -> None:
    """Parse words as ``secbeat`` would, without running anything. Raises what the command itself would print."""
    context = root().make_context("secbeat", [], resilient_parsing=True)
    command, path = root(), "secbeat"
    words = [_PLACEHOLDERS.get(word, word) for word in words]
    while subcommands := getattr(command, "commands", None):
        if not words or words[0] not in subcommands:
            break
        path, command, words = f"{path} {words[0]}", subcommands[words[0]], words[1:]
    assert command is not root() or not words or words[0].startswith("-"), f"there is no command {words[0]!r}"
    if "commands" in dir(command) and words and not words[0].startswith("-"):
        pytest.fail(f"{path} has no command {words[0]!r}")
    command.make_context(path, words, parent=context, resilient_parsing=not arity)


def test_every_block_says_in_which_language_it_is():
    assert [f"{block}: {block.language}" for block in all_blocks() if block.language not in KNOWN] == []


@pytest.mark.parametrize("block", all_blocks("toml"), ids=named)
def test_a_configuration_is_valid(block, tmp_path):
    tomllib.loads(block.text)
    path = tmp_path / "secbeat.toml"
    # What a reader has to put in is told in words.
    path.write_text(block.text.replace("put the output of: openssl rand -hex 32", "5c1d0f9e7a3b4d6688aa10cc2e44f1b7"))
    load(path, environ={})


@pytest.mark.parametrize("block", all_blocks("json"), ids=named)
def test_json_is_json(block):
    json.loads(block.text)


@pytest.mark.parametrize("block", all_blocks("python"), ids=named)
def test_python_is_python(block):
    ast.parse(block.text)


def test_yaml_is_yaml_and_playbooks_are_playbooks(tmp_path):
    """Ansible's own word on all of them at once: it takes a second to begin."""
    plays = []
    for number, block in enumerate(all_blocks("yaml")):
        content = yaml.safe_load(block.text)
        if isinstance(content, list) and all("hosts" in play for play in content):
            plays.append(tmp_path / f"play{number}.yml")
            plays[-1].write_text(block.text)
        if block.file is not None and "/tasks/" in block.file:
            tasks = tmp_path / "tasks" / Path(block.file).name
            tasks.parent.mkdir(exist_ok=True)
            tasks.write_text(block.text)
    assert plays
    program = ROOT / ".venv" / "bin" / "ansible-playbook"
    program = program if program.exists() else "ansible-playbook"
    done = subprocess.run(
        [program, "--syntax-check", "-i", "localhost,", *plays],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8", "ANSIBLE_LOCALHOST_WARNING": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("place", "words"), secbeat_lines())
def test_a_command_line_is_one_that_secbeat_takes(place, words):
    try:
        parsed(shlex.split(re.sub(r"[0-9]*>\S*", "", words)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see below
        pytest.fail(f"{place}: secbeat{words}: {getattr(error, 'message', error)}")


def test_a_command_that_is_named_in_a_sentence_exists():
    for page in pages():
        for match in _INLINE.finditer(page.read_text()):
            words = shlex.split(match[1].rstrip("…. "))
            try:
                parsed(words, arity=False)
            except Exception as error:  # noqa: BLE001 - the place is what the reader of this failure needs
                pytest.fail(f"{page.name}: `secbeat {match[1]}`: {getattr(error, 'message', error)}")


@pytest.mark.parametrize(
    "line",
    ["nosuch", "pools nosuch", "why", "scale web many", "pause web --until 5", "drain", "jobs log A -f --wait"],
)
def test_a_wrong_command_line_would_be_seen(line):
    with pytest.raises((Exception, SystemExit, pytest.fail.Exception)):
        parsed(shlex.split(line))


def test_every_route_that_curl_calls_is_in_the_services_own_documents():
    known = documents()
    seen = 0
    for block in all_blocks(*SHELL):
        for line in commands(block):
            for match in _CURL.finditer(line):
                service, path = _PORTS.get(match["port"]), match["path"] or "/"
                if service is None or path == "/api/openapi.json":
                    continue
                words = match["words"] + line[match.end() :].partition("|")[0]
                method = re.search(r"-X (\w+)", words)
                posts = " -d" in words or "--data" in words
                found = openapi.operation_at(known[service], method[1] if method else "POST" if posts else "GET", path)
                assert found is not None, f"{block}: {line}"
                seen += 1
    assert seen > 3


def test_every_variable_of_the_environment_is_one_that_is_read():
    from scripts.reference.environment import VARIABLES

    for page in pages():
        text = page.read_text()
        for name in (
            set(re.findall(r"\bSECBEAT_[A-Z_]+[A-Z]\b", text)) - set(VARIABLES) - {"SECBEAT_CI", "SECBEAT_TABLE__KEY"}
        ):
            assert "__" in name, f"{page.name}: {name}"
            assert list(variables({name: "1"})), name


def test_every_code_that_is_explained_is_in_the_catalogue():
    for page in pages():
        for code in re.findall(r"secbeat explain ([A-Z][A-Z0-9_]+)", page.read_text()):
            assert code == "CODE" or code in catalogue.ALL, f"{page.name}: {code}"


def test_the_codes_of_the_table_of_usual_reasons_are_reasons():
    text = (ROOT / "docs" / "howto" / "why.md").read_text()
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \|", text, flags=re.MULTILINE)
    codes = re.findall(r"[A-Z_]{3,}", " ".join(rows))
    assert len(codes) > 10
    assert [code for code in codes if code not in catalogue.ALL or catalogue.ALL[code].kind != "reason"] == []
