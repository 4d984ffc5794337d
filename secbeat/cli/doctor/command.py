"""Run all checks and print them, grouped, the verdict last."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secbeat.cli.output import Format, Output, clean, note
from secbeat.cli.session import ConfigOption, OutputOption, StateOption, TokenOption, UrlOption

if TYPE_CHECKING:
    from secbeat.cli.doctor.finding import Finding
    from secbeat.settings import NatsSettings, Settings

GROUPS = ("program", "configuration", "state", "secrets", "listeners", "machine", "nats", "services")
_RUNNING = frozenset({"nats", "services"})
_AGAIN_SECONDS = 1.0
_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skip": "--  "}


def doctor(
    groups: Annotated[
        list[str] | None, typer.Argument(metavar="[GROUP]...", help=f"Only these: {', '.join(GROUPS)}.")
    ] = None,
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    pre: Annotated[bool, typer.Option("--pre", help="Only what must be right before anything runs.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Look again until no check fails.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="Longest wait.")] = "5m",
    output: OutputOption = Format.TABLE,
) -> None:
    """Check this machine, and say what is missing.

    Each line has its remedy, the verdict stands last; exit code 1 if a check failed.
    """
    from secbeat.cli.durations import parse_duration
    from secbeat.errors import SecbeatError
    from secbeat.paths import default_state_dir

    chosen = _chosen(groups or (), pre=pre)
    seconds = parse_duration(timeout) if wait else 0.0

    def look() -> list[Finding]:
        found = examine(config, state or default_state_dir(), url, token_file, chosen)
        return [one for one in found if one.group in chosen]

    found = look()
    deadline = time.monotonic() + seconds
    while wait and any(one.status == "fail" for one in found) and time.monotonic() < deadline:
        note(_verdict(found) + "; looking again")
        time.sleep(_AGAIN_SECONDS)
        found = look()
    failed = [one for one in found if one.status == "fail"]
    verdict = _verdict(found)
    data = {"ok": not failed, "verdict": verdict, "checks": [_plain(one) for one in found]}
    Output(output).text([*_lines(found), "", verdict], data)
    if failed:
        names = ", ".join(one.name for one in failed)
        raise SecbeatError("UNHEALTHY", why=names, fix=failed[0].remedy or None)


def _chosen(groups: Sequence[str], *, pre: bool) -> frozenset[str]:
    """The groups to check.

    Raises:
        ConfigError: there is no such group (USAGE).
    """
    from secbeat.errors import ConfigError

    if unknown := [name for name in groups if name not in GROUPS]:
        why = f"there is no group {unknown[0][:40]!r}; there are: {', '.join(GROUPS)}"
        raise ConfigError("USAGE", why=why)
    return frozenset(groups or GROUPS) - (_RUNNING if pre else frozenset())


def examine(
    config: Path | None,
    state: Path,
    url: str | None,
    token_file: Path | None,
    groups: frozenset[str] = frozenset(GROUPS),
) -> Iterator[Finding]:
    """All findings of ``groups``, group after group; those of others may stand between them where they cost nothing."""
    from secbeat.cli.doctor import environment, files, machine, network
    from secbeat.cli.doctor.finding import Finding
    from secbeat.cli.finding import find
    from secbeat.errors import SecbeatError
    from secbeat.paths import StateDir

    run = StateDir(state).read_run() or {}
    running = _alive(run.get("pid"))
    if config is None and running and isinstance(run.get("config"), str):
        config = Path(run["config"])  # what runs is what is to be checked
    loaded, found = files.configuration(config)
    settings = loaded.settings if loaded else None
    external = loaded is not None and "nats.url" in loaded.sources
    yield from environment.checks(own_nats=not external)
    yield from found
    yield from files.state(state)
    if settings is not None:
        yield from files.secrets(settings)
        yield from files.listeners(settings)
    local = settings is None or any(one.target == "local" for one in settings.blueprints.values())
    yield from machine.checks({} if running or settings is None else _ports(settings), local=local, state=state)
    if settings is not None and "nats" in groups:
        monitor = run.get("nats_monitor_url") if running else None
        yield from network.nats(
            _nats_of(settings, run if running else {}),
            expected=running or external,
            monitor=monitor if isinstance(monitor, str) else None,
        )
    for service in ("orchestrator", "provisioner") if "services" in groups else ():
        try:
            target = find(service, url=url if service == "orchestrator" else None, token_file=token_file, state=state)
        except SecbeatError as error:
            yield Finding("services", service, "fail", error.why, error.fix)
            continue
        has_one = service == "orchestrator" or run.get("provisioner_url")
        yield from network.service(target, expected=bool(running and has_one))


def _nats_of(settings: Settings, run: dict[str, object]) -> NatsSettings:
    """The settings of the NATS server that runs; with ``up`` its address and credentials are the instance's own."""
    if not isinstance(run.get("nats_url"), str):
        return settings.nats
    state = Path(str(run.get("state_dir")))
    creds = state / "secrets" / "nats" / "admin.creds"
    return settings.nats.model_copy(update={"url": run["nats_url"], "creds_file": creds if creds.exists() else None})


def _ports(settings: Settings) -> dict[str, str]:
    orchestrator, provisioner = settings.orchestrator, settings.provisioner
    return {
        "orchestrator": orchestrator.listen_addr,
        "metrics": orchestrator.metrics_addr,
        "provisioner": provisioner.listen_addr,
    }


def _alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _verdict(found: Sequence[Finding]) -> str:
    failed = sum(one.status == "fail" for one in found)
    warned = sum(one.status == "warn" for one in found)
    if failed:
        return f"Not ready: {failed} of {len(found)} checks failed" + (f", {warned} warnings" if warned else "")
    return "Ready" + (f", with {warned} warnings" if warned else "") + f": {len(found)} checks"


def _plain(one: Finding) -> dict[str, str]:
    return {"group": one.group, "name": one.name, "status": one.status, "detail": one.detail, "remedy": one.remedy}


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    order = list(dict.fromkeys(one.group for one in found))
    for group, members in groupby(sorted(found, key=lambda one: order.index(one.group)), key=lambda one: one.group):
        yield group
        for one in members:
            yield f"  {_MARKS[one.status]}  {one.name}: {clean(one.detail)}"
            if one.remedy:
                yield f"        fix: {clean(one.remedy)}"
