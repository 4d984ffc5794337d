"""``secbeat config``: validate a file, show what is in force and where each value came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secbeat.cli.output import Column, Format, Output, note
from secbeat.cli.session import ConfigOption, OutputOption, SetOption, example

if TYPE_CHECKING:
    from secbeat.settings import Loaded, Settings

config = typer.Typer(no_args_is_help=False, help="The configuration: check it, show what is in force.")


@config.command("check", epilog=example("secbeat config check /etc/secbeat.toml"))
def check(
    file: Annotated[Path, typer.Argument(metavar="F", readable=False, help="The configuration file (TOML).")],
    output: OutputOption = Format.TABLE,
) -> None:
    """Validate a file.

    Exit code 2 and the line to mend if it is wrong.
    """
    from secbeat.settings import load

    loaded = load(file)
    warnings = list(contradictions(loaded.settings))
    for warning in warnings:
        note(f"warning: {warning}")
    settings = loaded.settings
    pools, blueprints = sorted(settings.pools), sorted(settings.blueprints)
    data = {
        "file": str(file),
        "valid": True,
        "pools": pools,
        "blueprints": blueprints,
        "warnings": warnings,
    }
    sentence = f"{file} is valid: pools {', '.join(pools)}; blueprints {', '.join(blueprints)}"
    Output(output).text([sentence], data)


@config.command("show", epilog=example("secbeat config show --config /etc/secbeat.toml"))
def show(
    file: ConfigOption = None,
    settings: SetOption = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not a default.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Print every value in force and its source.

    Secrets are hidden.
    """
    from secbeat.cli.services import overrides
    from secbeat.settings import load

    rows = [
        row for row in effective(load(file, overrides=overrides(settings))) if not changed or row["source"] != "default"
    ]
    columns = [
        Column("KEY", lambda row: row["key"]),
        Column("RELOAD", lambda row: row["reload"]),
        Column("SOURCE", lambda row: row["source"]),
        Column("VALUE", lambda row: _shown(row["value"])),
    ]
    Output(output).rows(rows, columns, empty="Everything is a default.")


def effective(loaded: Loaded) -> Iterator[dict[str, Any]]:
    """One row per key: its value (secrets hidden), its source, and what a change of it needs."""
    from secbeat.cli.redaction import redact
    from secbeat.settings.tree import find, leaves

    for dotted, value in leaves(loaded.settings):
        key = find(dotted)
        yield {
            "key": dotted,
            "value": redact(dotted, value),
            "source": _source(loaded, dotted),
            "reload": "restart" if key is None else key.reload,
        }


def _source(loaded: Loaded, dotted: str) -> str:
    if dotted in loaded.sources:
        return loaded.sources[dotted]
    below = [source for known, source in loaded.sources.items() if known.startswith(f"{dotted}.")]
    if below:
        return below[0]
    table, _, name = dotted.rpartition(".")
    flat = {"min": "min_fleet_size", "max": "max_fleet_size"}.get(name, name) if table == "pools.default" else name
    inherited = loaded.sources.get(f"orchestrator.{flat}") if table.startswith("pools.") else None
    return f"{inherited} (for all pools)" if inherited else "default"


def contradictions(settings: Settings) -> Iterator[str]:
    """What is valid, but most likely not meant."""
    for name, pool in settings.pools.items():
        if pool.blueprint not in settings.blueprints:
            yield f"pool {name} uses blueprint {pool.blueprint!r}, which this file does not have ([blueprints])"
            continue
        limit = settings.blueprints[pool.blueprint].max_machines
        if pool.max > limit:
            yield f"pool {name} has max {pool.max}, but blueprint {pool.blueprint!r} stops at max_machines {limit}"
    total = sum(pool.max for pool in settings.pools.values())
    if total > settings.provisioner.max_machines:
        yield f"the pools' max add up to {total}, but provisioner.max_machines is {settings.provisioner.max_machines}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "[]"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) or "{}"
    return "-" if value is None else str(value)
