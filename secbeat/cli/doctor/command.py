"""Run all checks and print them, grouped, the verdict last."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from secbeat.cli.output import Format, Output, clean
from secbeat.cli.session import ConfigOption, OutputOption, StateOption, TokenOption, UrlOption

if TYPE_CHECKING:
    from secbeat.cli.doctor.finding import Finding
    from secbeat.settings import NatsSettings, Settings

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skip": "--  "}


def doctor(
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Check this machine, and say what is missing.

    Each line has its remedy, the verdict stands last; exit code 1 if a check failed.
    """
    from secbeat.errors import SecbeatError
    from secbeat.paths import default_state_dir

    found = list(examine(config, state or default_state_dir(), url, token_file))
    failed = [one for one in found if one.status == "fail"]
    verdict = _verdict(found)
    data = {"ok": not failed, "verdict": verdict, "checks": [_plain(one) for one in found]}
    Output(output).text([*_lines(found), "", verdict], data)
    if failed:
        names = ", ".join(one.name for one in failed)
        raise SecbeatError("UNHEALTHY", why=names, fix=failed[0].remedy or None)


def examine(config: Path | None, state: Path, url: str | None, token_file: Path | None) -> Iterator[Finding]:
    """All findings, group after group."""
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
    local = settings is None or any(one.target == "local" for one in settings.blueprints.values())
    yield from machine.checks({} if running or settings is None else _ports(settings), local=local, state=state)
    if settings is not None:
        monitor = run.get("nats_monitor_url") if running else None
        yield from network.nats(
            _nats_of(settings, run if running else {}),
            expected=running or external,
            monitor=monitor if isinstance(monitor, str) else None,
        )
    for service in ("orchestrator", "provisioner"):
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
