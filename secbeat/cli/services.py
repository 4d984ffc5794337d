"""Commands that run something: up, demo, one service, the test origin. Each imports its service when it starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secbeat.cli.session import ConfigOption, SetOption
from secbeat.errors import ConfigError

if TYPE_CHECKING:
    from secbeat.service import Stop
    from secbeat.settings import Loaded

_EXTRAS = {"orchestrator": "orchestrator", "provisioner": "provisioner", "node": "node", "secbeat": "all"}


class DemoTarget(StrEnum):
    """Where the demo's machines stand."""

    LOCAL = "local"
    QEMU = "qemu"


class DemoEngine(StrEnum):
    """What makes the demo's machines."""

    ANSIBLE = "ansible"
    TERRAFORM = "terraform"


def up(
    config: ConfigOption = None,
    state: Annotated[
        Path | None, typer.Option("--state", readable=False, help="State directory; kept when 'up' ends.")
    ] = None,
    no_provisioner: Annotated[bool, typer.Option("--no-provisioner", help="You run your own receiver.")] = False,
) -> None:
    """Run everything in one terminal.

    NATS, orchestrator and provisioner as child processes, and each pool's first nodes.
    """
    run = service_function("secbeat.up", "run")
    raise typer.Exit(run(config=config, state=state, provisioner=not no_provisioner))


def demo(
    target: Annotated[DemoTarget, typer.Option("--target", help="Where the machines stand.")] = DemoTarget.LOCAL,
    engine: Annotated[DemoEngine, typer.Option("--engine", help="What makes them.")] = DemoEngine.ANSIBLE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end, on standard output.")] = False,
) -> None:
    """Run the whole loop with real load, on this machine.

    A private instance on free ports; every step is checked from outside.
    """
    run = service_function("secbeat.demo", "run")
    raise typer.Exit(run(target=target.value, engine=engine.value, as_json=as_json))


def orchestrator(config: ConfigOption = None, settings: SetOption = None) -> None:
    """Run the service that decides and calls the webhook."""
    raise typer.Exit(_serve("orchestrator", config, settings))


def provisioner(config: ConfigOption = None, settings: SetOption = None) -> None:
    """Run the service that takes webhooks and runs playbooks."""
    raise typer.Exit(_serve("provisioner", config, settings))


def node(config: ConfigOption = None, settings: SetOption = None) -> None:
    """Run a node: TLS proxy, heartbeats, drain."""
    raise typer.Exit(_serve("node", config, settings))


def origin(
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:8080",
) -> None:
    """Run the test origin, an upstream to try things with."""
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(
            "USAGE", why=f"--listen {listen!r} is not HOST:PORT", fix="secbeat origin --listen 127.0.0.1:8080"
        )
    main = service_function("secbeat.origin", "main")
    from secbeat import service

    raise typer.Exit(service.run("origin", lambda stop: main(stop, listen)))


def overrides(settings: list[str] | None) -> dict[str, Any]:
    """``--set KEY=VALUE`` flags as overrides for ``secbeat.settings.load``.

    Raises:
        ConfigError: not of that form, or no such key (USAGE).
    """
    from secbeat.settings.environment import from_text

    found = {}
    for item in settings or ():
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(
                "USAGE", why=f"--set {key[:100]!r} has no value", fix="--set nats.url=nats://10.0.0.5:4222"
            )
        found[key.strip()] = from_text(f"--set {key}", key.strip(), value.strip())
    return found


def _serve(name: str, config: Path | None, settings: list[str] | None) -> int:
    from secbeat import service
    from secbeat.settings import load

    loaded = load(config, overrides=overrides(settings))
    main: Callable[[Stop, Loaded], Awaitable[int]] = service_function(f"{name}.app", "main")
    return service.run(name, lambda stop: main(stop, loaded), log_file=getattr(loaded.settings, name).log_file)


def service_function(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that belongs to an extra.

    Raises:
        ConfigError: a package of the extra is not installed (EXTRA_MISSING).
    """
    try:
        found: Callable[..., Any] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.partition(".")[0] in _EXTRAS and missing.partition(".")[0] == module.partition(".")[0]:
            raise  # our own module is missing: a defect of this build, and no extra would bring it
        extra = _EXTRAS[module.partition(".")[0]]
        raise ConfigError(
            "EXTRA_MISSING", why=f"the package {missing} is not installed", fix=f"pip install 'secbeat[{extra}]'"
        ) from None
    return found
