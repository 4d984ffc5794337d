"""The HAProxy program: whether there is one, whether it is new enough, what it says of a configuration."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from secbeat.errors import ConfigError

OLDEST = (2, 6)
_SECONDS = 20.0
_VERSION = re.compile(r"version (\d+)\.(\d+)[^\s]*")


@dataclass(frozen=True, slots=True)
class Program:
    """An HAProxy that can be used."""

    path: str
    version: str
    lua: bool


def environment() -> dict[str, str]:
    """What HAProxy gets of our environment: nothing that could be a secret."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "TZ") if name in os.environ}


async def find(name: str) -> Program:
    """The program ``name``, a path or a name on the PATH.

    Raises:
        ConfigError: HAPROXY_MISSING, HAPROXY_TOO_OLD.
    """
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
    path = shutil.which(name, path=search)
    if path is None:
        raise ConfigError("HAPROXY_MISSING", why=f"there is no program {name!r}")
    _, text = await _run(path, "-vv")
    found = _VERSION.search(text)
    if found is None:
        raise ConfigError("HAPROXY_MISSING", why=f"{path} does not say that it is HAProxy")
    if (int(found[1]), int(found[2])) < OLDEST:
        raise ConfigError("HAPROXY_TOO_OLD", why=f"{path} is version {found[0].removeprefix('version ')}")
    return Program(path, found[0].removeprefix("version "), "USE_LUA=1" in text or "+LUA" in text)


async def check(program: Program, directory: Path, config: str) -> None:
    """Let HAProxy check a configuration.

    Raises:
        ConfigError: HAPROXY_REFUSED, with its words.
    """
    code, text = await _run(program.path, "-c", "-f", config, cwd=directory)
    if code:
        raise ConfigError("HAPROXY_REFUSED", why=complaint(text))


def complaint(text: str) -> str:
    """The first alert in HAProxy's output."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    alerts = [line for line in lines if line.startswith("[ALERT]")]
    return (alerts or lines[-1:] or ["it ended without a word"])[0][:300]


async def _run(*words: str, cwd: Path | None = None) -> tuple[int, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=cwd,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise ConfigError("HAPROXY_MISSING", why=f"{words[0]}: {error}") from None
    try:
        async with asyncio.timeout(_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise ConfigError("HAPROXY_REFUSED", why=f"{words[0]} {words[1]} did not end in {_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")
