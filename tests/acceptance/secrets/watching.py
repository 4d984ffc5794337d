"""Looks at a running instance as an intruder would: files, process table, API; collects the secrets beside it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import psutil

from tests.acceptance.crashes.fleet import Fleet

# Files that are there to hold a secret, relative to the state directory. Everything else may hold none.
KEEPERS = (
    "secrets/*",
    "config.toml",  # the operator's own file
    "revisions/*/blueprint.json",  # the variables that a machine was made with, for its teardown
    "machines/default-*/join.json",
    "machines/default-*/.join.json.*",  # the same, before it gets its name
    "machines/default-*/state/*",
    "jobs/*/work-*/*",  # the job's private directory, while it runs
)
# The server's copy of what identifies its operator and accounts; nobody can log in with it.
PUBLIC = ("operator.jwt", "account.jwt", "system.jwt", "account.pub")


@dataclass
class Watch:
    """What was seen of one fleet."""

    fleet: Fleet
    join_secrets: set[str] = field(default_factory=set)
    node_secrets: set[str] = field(default_factory=set)
    processes: dict[tuple[int, str], bytes] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(0.05)

    def look(self) -> None:
        for process in [*psutil.Process().children(recursive=True), *self.fleet.running()]:
            for name in ("cmdline", "environ"):
                with suppress(OSError):
                    self.processes[process.pid, name] = Path(f"/proc/{process.pid}/{name}").read_bytes()
        for folder in ("machines", "jobs"):
            # Path.rglob fails when a directory vanishes under it, which is what happens here.
            for place, folders, files in os.walk(self.fleet.state / folder):
                for name in folders + files:
                    with suppress(OSError):
                        self._file(Path(place, name))

    def _file(self, path: Path) -> None:
        where = str(path.relative_to(self.fleet.state))
        found = path.lstat().st_mode
        self.modes[where] = found
        if not stat.S_ISREG(found):
            return
        content = path.read_bytes()
        if not _keeps(where):
            # Only ever growing or replaced: the longest is the whole.
            if len(content) >= len(self.texts.get(where, b"")):
                self.texts[where] = content
        elif path.name == "join.json":
            with suppress(ValueError):
                self.join_secrets.add(json.loads(content)["secret"])
        elif "/state/" in where and not path.name.startswith("."):  # that one is still being written
            self.node_secrets |= _words(path.name, content.decode())

    async def ask(self) -> None:
        """Read everything that the APIs tell an administrator."""
        api, provisioner = self.fleet.instance.urls.orchestrator, self.fleet.instance.urls.provisioner
        operations = await self.fleet.operations()
        each = [f"{api}/api/v1/{kind}/{op['op_id']}" for op in operations for kind in ("operations", "jobs")]
        each += [f"{provisioner}/jobs/{op['op_id']}{log}" for op in operations for log in ("", "/log")]
        lists = "pools nodes nodes?all=1 operations jobs decisions audit?newest=1000 fleet/stats dashboard/summary"
        each += [f"{api}/api/v1/{path}" for path in lists.split()]
        each += [f"{api}/api/v1/nodes/{node['node_id']}" for node in await self.fleet.nodes()]
        each += [f"{api}/api/v1/pools/default/why", f"{api}/api/openapi.json", self.fleet.instance.urls.metrics]
        each += [f"{provisioner}/{path}" for path in ("jobs", "machines", "blueprints", "metrics", "healthz")]
        for url in each:
            self.texts[f"GET {url}"] = await self._get(url)
        self.texts["events"] = await self._get(f"{api}/api/v1/events", seconds=2.0, headers={"Last-Event-ID": "0"})

    async def _get(self, url: str, *, seconds: float = 30.0, headers: dict[str, str] | None = None) -> bytes:
        """The answer; of a stream what comes within the time."""
        session = self.fleet.instance.api._session
        body = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), session.get(url, headers=headers) as answer:
                assert answer.status == 200, f"{url}: {answer.status} {await answer.text()}"
                async for chunk in answer.content.iter_any():
                    body += chunk
        return body

    # ------------------------------------------------------------------ verdicts

    def secrets(self, *more: str) -> set[str]:
        """Everything that must stay secret."""
        found = self.join_secrets | self.node_secrets | set(more)
        for path in (self.fleet.state / "secrets").rglob("*"):
            if path.is_file() and path.name not in PUBLIC:
                found |= _words(path.name, path.read_text())
        return found

    def leaks(self, secrets: set[str]) -> list[str]:
        """Where a secret was seen that has no business there."""
        pattern = re.compile(b"|".join(sorted({re.escape(form) for secret in secrets for form in _forms(secret)})))
        # The server's store and all logs as they lie on the disk, besides what was seen before.
        seen = dict(self.texts) | {f"{name} of {pid}": text for (pid, name), text in self.processes.items()}
        for path in self.fleet.state.rglob("*"):
            where = str(path.relative_to(self.fleet.state))
            if path.is_file() and not _keeps(where):
                seen[where] = path.read_bytes()
        seen["output of the services"] = (self.fleet.state.parent / "output.log").read_bytes()
        return [f"{where}: …{match[0][:6]!r}…" for where, text in seen.items() if (match := pattern.search(text))]

    def open_modes(self) -> list[str]:
        """Keepers of secrets, and directories above them, that somebody else could read."""
        for path in self.fleet.state.rglob("*"):
            self.modes[str(path.relative_to(self.fleet.state))] = path.lstat().st_mode
        self.modes["."] = self.fleet.state.lstat().st_mode
        above = {"."} | {str(parent) for where in self.modes if _keeps(where) for parent in Path(where).parents}
        wrong = []
        for where, mode in self.modes.items():
            expected = 0o700 if stat.S_ISDIR(mode) else 0o600
            if (where in above or _keeps(where)) and stat.S_IMODE(mode) != expected:
                wrong.append(f"{where}: {stat.S_IMODE(mode):04o}")
        return wrong


def _keeps(where: str) -> bool:
    return any(fnmatch(where, pattern) for pattern in KEEPERS)


def _words(name: str, text: str) -> set[str]:
    """The secrets in a file that holds some."""
    if name.endswith(".crt"):
        return set()
    if name.endswith(".json"):
        return {value for key, value in _strings(json.loads(text)) if re.search("token|secret|jwt|seed|sha256", key)}
    return {line for line in text.split() if len(line) >= 20 and "-----" not in line}


def _strings(value: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for name, item in value.items() for pair in _strings(item, name)]
    if isinstance(value, list):
        return [pair for item in value for pair in _strings(item, key)]
    return [(key, value)] if isinstance(value, str) and len(value) >= 20 else []


def _forms(secret: str) -> set[bytes]:
    raw = secret.removeprefix("whsec_").encode()
    return {raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode()}
