"""The command's table of contents: which command is which function, and how a run ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from secbeat.cli import configuring, explaining, following, helping, operating, reading, services
from secbeat.cli.doctor import doctor
from secbeat.cli.output import print_error
from secbeat.cli.session import example
from secbeat.errors import ConfigError, SecbeatError

# BadParameter → UsageError → ClickException, whether Typer brings its own Click or uses the package.
_CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
_ORDER = (
    *("up", "demo", "orchestrator", "provisioner", "node", "origin"),
    *("pools", "nodes", "operations", "jobs", "decisions", "audit", "why", "explain", "help"),
    *("scale", "pause", "resume", "drain", "undrain", "protect", "events", "doctor", "config"),
)
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


class _Ordered(TyperGroup):
    """Lists the commands in the order in which people meet them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    name="secbeat",
    cls=_Ordered,
    epilog=example("secbeat up", "secbeat why default"),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=_HELP,
    invoke_without_command=True,
)


@app.callback()
def secbeat(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Self-hosted auto-scaling for fleets of machines: it decides, your own playbooks build.

    Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused or blocked, 4 not authorised, 5 service
    unreachable, 6 wait timed out, 130 interrupted.
    """
    if version:
        from secbeat import __version__

        print(f"secbeat {__version__}")
        raise typer.Exit


def _add(function: Any, *examples: str, name: str | None = None) -> None:
    app.command(name or function.__name__, epilog=example(*examples))(function)


_add(services.up, "secbeat up", "secbeat up --config secbeat.toml --state /var/lib/secbeat")
_add(services.demo, "secbeat demo", "secbeat demo --json")
_add(services.orchestrator, "secbeat orchestrator --config secbeat.toml")
_add(services.provisioner, "secbeat provisioner --config secbeat.toml")
_add(services.node, "secbeat node --config node.toml")
_add(services.origin, "secbeat origin --listen 127.0.0.1:8080")
app.add_typer(reading.pools, name="pools")
app.add_typer(reading.nodes, name="nodes")
app.add_typer(reading.operations, name="operations")
app.add_typer(reading.jobs, name="jobs")
app.add_typer(reading.decisions, name="decisions")
app.add_typer(reading.audit, name="audit")
_add(explaining.why, "secbeat why web", "secbeat why web --at 15m", "secbeat why 1f9c2a7e")
_add(explaining.explain, "secbeat explain NATS_UNREACHABLE")
_add(helping.help_topic, "secbeat help exit-codes", "secbeat help scale", name="help")
_add(operating.scale, "secbeat scale web 5 --for 2h --wait", "secbeat scale web 5 --dry-run")
_add(operating.pause, "secbeat pause web --for 2h --direction in --reason 'database upgrade'")
_add(operating.resume, "secbeat resume web")
_add(operating.drain, "secbeat drain 1f9c2a7e --wait --timeout 5m")
_add(operating.undrain, "secbeat undrain 1f9c2a7e")
_add(operating.protect, "secbeat protect 1f9c2a7e", "secbeat protect 1f9c2a7e --off")
_add(following.events, "secbeat events -f", "secbeat events --after 0 -o json")
_add(doctor, "secbeat doctor", "secbeat doctor --pre --config secbeat.toml", "secbeat doctor nats -o json")
app.add_typer(configuring.config, name="config", epilog=example("secbeat config check secbeat.toml"))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. Every error that a person can cause is printed with code, why and fix."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    command = typer.main.get_command(app)
    return _complete(command) if "_SECBEAT_COMPLETE" in os.environ else _execute(command, arguments)


def _execute(command: Any, arguments: list[str]) -> int:
    try:
        # Not command.main(): it would turn a closed pipe into exit code 1.
        with command.make_context("secbeat", arguments) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as ended:
        return ended.exit_code
    except SecbeatError as error:
        print_error(error)
        return error.exit_code
    except _CLICK_ERROR as error:
        print_error(_usage(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The reader has gone (secbeat events | head): nothing to say, and nothing left to flush at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _complete(command: Any) -> int:
    from secbeat.cli import completing

    completing.attach(command)
    completing.plain_help()
    try:
        command.main([], prog_name="secbeat")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except Exception:  # noqa: BLE001 - a shell that asks in a way of its own gets no answer, and no traceback either
        return 1
    return 0


def _usage(error: Exception) -> SecbeatError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "secbeat"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return ConfigError("USAGE", why=" ".join(message.split()), fix=f"See the options and an example: {path} --help")
