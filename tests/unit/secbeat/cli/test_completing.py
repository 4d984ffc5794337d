"""Completion as the shells ask for it: a process with their variables, its standard output, nothing else."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time

import pytest

from secbeat.cli.app import app


def environment(shell, line, tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SECBEAT")}
    words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    return {**kept, **asked, "_SECBEAT_COMPLETE": f"complete_{shell}", "SECBEAT_STATE": str(tmp_path / "state")}


def complete(line, tmp_path, *, shell="bash", **variables):
    run = subprocess.run(
        [sys.executable, "-m", "secbeat"], env=environment(shell, line, tmp_path) | variables, capture_output=True,
        text=True, timeout=20, check=False,
    )  # fmt: skip
    assert run.stderr == ""
    return run.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("secbeat why we", "web"),
        ("secbeat drain web-1f", "web-1f9c2a7e"),
        ("secbeat drain abcd", "abcdef12-0000-4000-8000-000000000003"),
        ("secbeat jobs log 01JD", "01JD2K000000000000000000A1"),
        ("secbeat operations show 01jd", "01JD2K000000000000000000B2"),
        ("secbeat nodes --pool ", "web"),
        ("secbeat explain NATS_UN", "NATS_UNREACHABLE"),
        ("secbeat und", "undrain"),
    ],
)
def test_what_exists_is_proposed(stub, tmp_path, line, expected):
    assert expected in complete(line, tmp_path, SECBEAT_URL=stub.url)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_every_shell_is_answered_and_told_what_each_is(stub, tmp_path, shell):
    found = complete("secbeat drain web-1f", tmp_path, shell=shell, SECBEAT_URL=stub.url)
    assert "web-1f9c2a7e" in found
    assert f"active, {stub.NODE}" in found


def test_the_token_is_found_as_the_command_finds_it(stub, tmp_path, token_file):
    complete("secbeat scale w", tmp_path, SECBEAT_URL=stub.url, SECBEAT_TOKEN_FILE=str(token_file))
    assert stub.requests[-1][3]["authorization"] == "Bearer stub-token"
    other = complete(f"secbeat pause --url {stub.url} w", tmp_path)
    assert other.split() == ["web"]


@pytest.mark.parametrize(
    "broken",
    [
        {"SECBEAT_URL": "http://127.0.0.1:1"},
        {"SECBEAT_URL": "no url"},
        {"SECBEAT_TOKEN_FILE": "/nonexistent"},
    ],
    ids=str,
)
def test_what_is_broken_is_never_said_into_the_line(tmp_path, broken):
    assert complete("secbeat drain ", tmp_path, **broken).strip() == ""


def test_a_service_that_does_not_answer_is_given_up_at_once(tmp_path):
    began = time.monotonic()
    complete("secbeat und", tmp_path)
    start = time.monotonic() - began
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert complete("secbeat drain ", tmp_path, SECBEAT_URL=url).strip() == ""
        spent = time.monotonic() - began
    assert 0.25 < spent < start * 2 + 1.0, f"{spent:.2f} s, of them about {start:.2f} s for the start"


def test_nonsense_from_a_shell_is_answered_by_nothing(tmp_path):
    kept = environment("bash", "secbeat ", tmp_path)
    del kept["COMP_WORDS"]
    run = subprocess.run([sys.executable, "-m", "secbeat"], env=kept, capture_output=True, timeout=20, check=False)
    assert (run.stdout, run.stderr) == (b"", b"")


def test_every_argument_that_names_something_live_is_completed():
    import typer

    from secbeat.cli import completing

    command = typer.main.get_command(app)
    completing.attach(command)
    without = [
        f"{name} {parameter.name}"
        for name, inner in _walk(command, "secbeat")
        for parameter in inner.params
        if parameter.param_type_name == "argument" and "shell_complete" not in vars(parameter)
    ]
    nothing_live = {"audit show event", "config check file", "doctor groups", "help topic", "scale size"}
    assert {name.removeprefix("secbeat ") for name in without} <= nothing_live


def _walk(command, name):
    yield name, command
    for key, inner in getattr(command, "commands", {}).items():
        yield from _walk(inner, f"{name} {key}")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_it_costs_little_cpu(stub, tmp_path, shell):
    def cpu(command, env):
        used = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, env=env, capture_output=True, timeout=20, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(used)

    env = environment(shell, "secbeat drain web", tmp_path) | {"SECBEAT_URL": stub.url}
    ours = cpu([sys.executable, "-m", "secbeat"], env)
    typer = cpu([sys.executable, "-c", "import typer"], os.environ)
    assert ours <= max(0.25, 4.2 * typer), f"{ours:.3f} s, typer {typer:.3f} s"
