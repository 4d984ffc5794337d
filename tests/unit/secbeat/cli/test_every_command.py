"""Every command of the tree, as a real process without a terminal and with standard input closed.

The list is generated: a new command is tested from its first day, and one whose argument has no sample fails here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from secbeat.cli.app import app

SECONDS = 5.0
EXIT_CODES = {0, 1, 2, 3, 4, 5, 6, 130}
NODE = "1f9c2a7e-0000-4000-8000-000000000001"
OP = "01JD2K000000000000000000A1"
SAMPLES = {
    "pool": "web",
    "size": "3",
    "node": NODE,
    "operation": OP,
    "job": OP,
    "decision": "web@7",
    "event": "01JD2K000000000000000000D4",
    "thing": "web",
    "topic": "exit-codes",
    "groups": "state",
    "code": "USAGE",
    "file": "{config}",
    "join_file": "{tmp}/join.json",
}
# These run until they are stopped; here they get what they must refuse at once.
REFUSED = {
    ("up",): ["--config", "{tmp}/absent.toml"],
    ("demo",): ["--target", "nowhere"],
    ("orchestrator",): ["--config", "{tmp}/absent.toml"],
    ("provisioner",): ["--config", "{tmp}/absent.toml"],
    ("node",): ["--config", "{tmp}/absent.toml"],
    ("origin",): ["--listen", "nowhere"],
}
LINES = {("events",), ("jobs", "log")}  # one JSON object per line
OFFLINE = {("explain",), ("help",), ("config", "check"), ("config", "show"), ("doctor",)}


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None or command.invoke_without_command:
        yield path, command
    for name, child in (children or {}).items():
        yield from walk(child, (*path, name))


COMMANDS = {path: command for path, command in walk(typer.main.get_command(app)) if path}
DATA_COMMANDS = [path for path, command in COMMANDS.items() if any(p.name == "output" for p in command.params)]


def arguments(path: tuple[str, ...], form: str, places: dict[str, str]) -> list[str]:
    command = COMMANDS[path]
    words = list(path)
    if path in REFUSED:
        words += REFUSED[path]
    for parameter in command.params if path not in REFUSED else ():
        if parameter.param_type_name == "argument":
            words.append(SAMPLES[parameter.name])
        elif parameter.required:
            words += [parameter.opts[0], SAMPLES[parameter.name]]
    if path in DATA_COMMANDS:
        words += ["-o", form]
    return [word.format(**places) for word in words]


def execute(words: list[str], environ: dict[str, str], cwd: Any) -> tuple[int, str, str]:
    started = time.monotonic()
    run = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "secbeat", *words],
        capture_output=True,
        cwd=cwd,
        env=environ,
        timeout=60,
        check=False,
    )
    used = time.monotonic() - started
    assert used < SECONDS * (1 + os.getloadavg()[0]), f"{words} took {used:.1f} s"
    return run.returncode, run.stdout.decode(), run.stderr.decode()


@pytest.fixture
def places(tmp_path):
    config = tmp_path / "secbeat.toml"
    config.write_text('[orchestrator]\nlisten_addr = "127.0.0.1:0"\nmetrics_addr = "127.0.0.1:0"\n'
                      '[provisioner]\nlisten_addr = "127.0.0.1:0"\n')  # fmt: skip
    return {"tmp": str(tmp_path), "config": str(config)}


@pytest.fixture
def environ(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SECBEAT_")}
    # A terminal's wishes must not matter where there is none.
    return kept | {
        "SECBEAT_STATE": str(tmp_path / "state"),
        "FORCE_COLOR": "1",
        "TERM": "xterm-256color",
        "http_proxy": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }


def check(path: tuple[str, ...], code: int, out: str, err: str, parse: Any) -> None:
    assert code in EXIT_CODES, f"{path}: exit code {code}\n{err}"
    assert "\x1b" not in out + err
    assert "Traceback" not in err
    assert "JOIN-SECRET-CANARY" not in out + err
    if code == 0:
        parse(out)
    else:
        if path != ("doctor",):
            assert out == "", f"{path} failed and printed data"
        assert re.search(
            r"^error\[[A-Z][A-Z0-9_]+\]: .+\n  why:  .+\n  fix:  .+\n  more: secbeat explain", err, re.MULTILINE
        ), err


def parse_json(path: tuple[str, ...]) -> Any:
    def parse(text: str) -> None:
        if path not in DATA_COMMANDS:
            return
        for document in text.splitlines() if path in LINES else [text]:
            json.loads(document)

    return parse


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_without_a_service_it_fails_with_code_why_and_fix_and_prints_no_data(path, places, environ):
    nobody = {"SECBEAT_URL": "http://127.0.0.1:1", "SECBEAT_PROVISIONER_URL": "http://127.0.0.1:1"}
    code, out, err = execute(arguments(path, "json", places), environ | nobody, places["tmp"])
    check(path, code, out, err, parse_json(path))
    if path in REFUSED:
        assert code == 2
    elif path not in OFFLINE:
        assert code == 5
    assert not Path(places["tmp"], "join.json").exists(), "no secret was made, so no file may be left"


@pytest.mark.parametrize("path", DATA_COMMANDS, ids=" ".join)
def test_with_a_service_json_parses(path, places, environ, stub):
    there = {"SECBEAT_URL": stub.url, "SECBEAT_PROVISIONER_URL": stub.url}
    code, out, err = execute(arguments(path, "json", places), environ | there, places["tmp"])
    check(path, code, out, err, parse_json(path))
    assert out.strip()
    if path != ("doctor",):
        assert code == 0, err


@pytest.mark.parametrize("form", ["yaml", "table"])
@pytest.mark.parametrize("path", [path for path in DATA_COMMANDS if path not in OFFLINE], ids=" ".join)
def test_with_a_service_yaml_parses_and_tables_have_no_control_characters(path, form, places, stub, run, monkeypatch):
    monkeypatch.setenv("SECBEAT_URL", stub.url)
    monkeypatch.setenv("SECBEAT_PROVISIONER_URL", stub.url)
    result = run(*arguments(path, form, places))
    assert result.code == 0, result.err
    assert "\x1b" not in result.out
    assert result.out.strip()
    if form == "yaml":
        list(yaml.safe_load_all(result.out))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_a_sentence_and_an_example(path, run):
    result = run(*path, "--help")
    assert result.code == 0
    assert f"Example: secbeat {path[0]}" in result.out
    assert "  -h, --help" in result.out


def test_the_whole_list_of_commands_is_there():
    names = {path[0] for path in COMMANDS}
    wanted = "up demo orchestrator provisioner node origin pools nodes operations jobs decisions audit why explain"
    wanted += " help scale pause resume drain undrain protect events doctor config"
    assert names == set(wanted.split())
    assert {("jobs", "log"), ("jobs", "cancel"), ("nodes", "new"), ("config", "check"), ("config", "show")} <= set(
        COMMANDS
    )
    for name in ("pools", "nodes", "operations", "jobs", "decisions", "audit"):
        assert (name, "show") in COMMANDS
