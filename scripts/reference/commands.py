"""The command reference, from the command itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from scripts.reference.tables import table, text
from secbeat.cli.app import app

_HEAD = """# Commands

What `secbeat COMMAND --help` prints. Data goes to standard output and everything else to standard error; `-o` chooses
its form (`table`, `json`, `yaml`). Without a terminal there is no colour and nothing moves; `NO_COLOR` is respected.
Nothing ever asks a question. How a command ends is told by its [exit code](exit-codes.md).

## Options that all client commands share

These find the orchestrator and choose the form of the output. They are left out of the tables below.

"""
SHARED = ("url", "token_file", "state", "output")
_SILENT = {"help", "install_completion", "show_completion"}


def page() -> str:
    """The page: the shared options, then every command in the order of ``secbeat --help``."""
    found = dict(walk())
    pools = found["pools"]
    with _context("pools", pools) as context:
        shared = [_record(one, context) for one in _options(pools) if one.name in SHARED]
    parts = [_HEAD + table(["option", "meaning"], shared)]
    parts += [_section(path, command) for path, command in found.items() if path]
    return "\n".join(parts)


def walk() -> Iterator[tuple[str, Any]]:
    """Every command as (words after ``secbeat``, command); the root has no words."""
    yield from _walk("", typer.main.get_command(app))


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    if subcommands := getattr(command, "commands", None):
        with _context(path, command) as context:
            for name in command.list_commands(context):
                yield from _walk(f"{path} {name}".strip(), subcommands[name])


def _context(path: str, command: Any) -> Any:
    return command.make_context(f"secbeat {path}".strip(), [], resilient_parsing=True)


def _options(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "option" and one.name not in _SILENT]


def _section(path: str, command: Any) -> str:
    shares = {one.name for one in command.params}.issuperset(SHARED)
    own = [one for one in _options(command) if not (shares and one.name in SHARED)]
    examples = re.findall(r"Example: (.*)", command.epilog or "")
    with _context(path, command) as context:
        usage = " ".join([f"secbeat {path}", *command.collect_usage_pieces(context)])
        arguments = [_record(one, context) for one in command.params if one.param_type_name == "argument"]
        options = [_record(one, context) for one in own]
    parts = [
        f"## secbeat {path}\n",
        f"    {usage}\n",
        "\n\n".join(text(paragraph) for paragraph in (command.help or "").split("\n\n")) + "\n",
        table(["argument", "meaning"], arguments),
        table(["option", "meaning"], options),
        "```sh\n" + "\n".join(examples) + "\n```\n" if examples else "",
    ]
    return "\n".join(part for part in parts if part)


def _record(parameter: Any, context: Any) -> tuple[str, str]:
    """Spelling and meaning, as ``--help`` has them."""
    names, meaning = parameter.get_help_record(context)
    return f"`{names}`", text(meaning)
