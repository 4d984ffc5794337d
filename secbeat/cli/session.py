"""What every client command shares: its four options, and the session that they make.

``@with_session`` replaces the parameter ``session`` of a command by the options ``--url --token-file --state -o``, so
that no command can lack one of them or spell it differently.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from secbeat.cli.output import Format, Output

# Paths are not checked by Typer (readable=False): a file that cannot be read is no wrong usage, and its error has a
# code and a remedy of its own.
OutputOption = Annotated[Format, typer.Option("--output", "-o", help="Format of the data on standard output.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="The orchestrator. Environment: SECBEAT_URL.")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", readable=False, help="File with the API token. Environment: SECBEAT_TOKEN_FILE."),
]
StateOption = Annotated[
    Path | None,
    typer.Option("--state", readable=False, help="State directory of 'secbeat up'. Environment: SECBEAT_STATE."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="SECBEAT_CONFIG", readable=False, help="The configuration file (TOML)."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key, over file and environment.")
]

_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "url": (UrlOption, None),
    "token_file": (TokenOption, None),
    "state": (StateOption, None),
    "output": (OutputOption, Format.TABLE),
}


class Session:
    """One run of a client command: where the services are and how to print."""

    def __init__(self, url: str | None, token_file: Path | None, state: Path | None, output: Format) -> None:
        self._url, self._token_file, self._state = url, token_file, state
        self.output = Output(output)

    @functools.cached_property
    def client(self) -> Any:
        """The client of the orchestrator (``secbeat.cli.client.Client``, imported when it is needed)."""
        from secbeat.cli.client import Client
        from secbeat.cli.finding import find

        return Client(find("orchestrator", url=self._url, token_file=self._token_file, state=self._state))

    def provisioner(self, url: str | None) -> Any:
        """The client of the provisioner."""
        from secbeat.cli.client import Client
        from secbeat.cli.finding import find

        return Client(find("provisioner", url=url, token_file=self._token_file, state=self._state))

    @property
    def now(self) -> datetime:
        """The time that ages are counted to."""
        return datetime.now(UTC)


def with_session(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command(session, …)`` the shared options."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "session"]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        session = Session(*(given.pop(name) for name in _OPTIONS))
        command(session, **given)

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + shared
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del wrapper.__wrapped__
    return wrapper


def example(*lines: str) -> str:
    """The epilog that shows how the command is used."""
    return "\b\n" + "\n".join(f"Example: {line}" for line in lines)
