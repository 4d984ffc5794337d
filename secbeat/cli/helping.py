"""``secbeat help``: what is common to all commands, and the help of one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

import typer

from secbeat.cli.output import Column, Format, Output
from secbeat.cli.session import OutputOption
from secbeat.errors import ConfigError

EXIT_CODES = {
    0: "Done.",
    1: "Failed.",
    2: "Wrong usage or configuration, or a set-up in which the service cannot start.",
    3: "Understood and refused: a limit, a pause, a stale revision.",
    4: "No valid token, or a token without the scope.",
    5: "A service that should answer does not.",
    6: "The wait ended before the work did; the work goes on.",
    130: "Interrupted (Ctrl-C).",
}
ENVIRONMENT = {
    "SECBEAT_URL": "The orchestrator, e.g. http://127.0.0.1:3030.",
    "SECBEAT_PROVISIONER_URL": "The provisioner, for the logs of jobs.",
    "SECBEAT_TOKEN_FILE": "File with the API token, mode 0600.",
    "SECBEAT_STATE": "State directory of 'secbeat up'.",
    "SECBEAT_CONFIG": "The configuration file; its keys as SECBEAT_TABLE__KEY.",
    "NO_COLOR": "Set: no colour, also on a terminal.",
}
_TOPICS: dict[str, tuple[str, dict[Any, str]]] = {
    "exit-codes": ("CODE", EXIT_CODES),
    "environment": ("VARIABLE", ENVIRONMENT),
}


def help_topic(
    ctx: typer.Context,
    topic: Annotated[str | None, typer.Argument(help="exit-codes, environment, or a command.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Explain the exit codes, the environment, or a command."""
    printer = Output(output)
    if topic is None:
        rows = [{"topic": name} for name in _TOPICS]
        printer.rows(rows, [Column("TOPIC", lambda row: row["topic"])], empty="")
    elif topic in _TOPICS:
        title, entries = _TOPICS[topic]
        key = title.lower()
        rows = [{key: name, "meaning": text} for name, text in entries.items()]
        printer.rows(
            rows, [Column(title, lambda row: row[key]), Column("MEANING", lambda row: row["meaning"])], empty=""
        )
    else:
        printer.text(*_of_command(ctx, topic))


def _of_command(ctx: typer.Context, name: str) -> tuple[list[str], dict[str, str]]:
    """The help of one command."""
    root: Any = ctx.find_root().command
    command = root.commands.get(name)
    if command is None:
        near = get_close_matches(name, [*root.commands, *_TOPICS], n=3)
        fix = f"Did you mean: {', '.join(near)}" if near else "See: secbeat help; secbeat --help"
        raise ConfigError("USAGE", why=f"there is no topic and no command {name[:64]!r}", fix=fix)
    inner = type(ctx)(command, info_name=name, parent=ctx.find_root(), max_content_width=120)
    text = command.get_help(inner)
    return text.splitlines(), {"command": name, "help": text}
