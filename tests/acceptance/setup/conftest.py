"""Starts that cannot succeed: what is said, how it ends, what is left."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.support import Finished, Place, free_port

# Root may write everywhere; without these two capabilities it is held to the permissions of files like anybody else.
_AS_ANYBODY = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--")
START_SECONDS = 20.0
TOKEN = "d2b2c7a06d9f4e0f8a1e53c7"

# All that a start needs: a test breaks one thing in it.
GOOD: dict[str, dict[str, Any]] = {
    "orchestrator": {"listen_addr": "127.0.0.1:0", "metrics_addr": "127.0.0.1:0"},
    "provisioner": {"listen_addr": "127.0.0.1:0"},
    "node": {"listen_addr": "127.0.0.1:0", "metrics_addr": "127.0.0.1:0", "register_jitter_seconds": 0},
    "management": {"listen_addr": "127.0.0.1:0", "auth_token": TOKEN},
    "nats": {"connect_timeout_seconds": 1},
}


def toml(table: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """A table of plain values and tables, in TOML."""
    values = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if name and values:
        yield f"[{name}]"
    yield from (f"{key} = {json.dumps(value)}" for key, value in values.items())
    for key, value in table.items():
        if isinstance(value, dict):
            yield from toml(value, f"{name}.{key}" if name else key)


@dataclass
class Setup:
    """One broken set-up after the other, in one place."""

    place: Place

    def config(self, text: str = "", *, nats: str = "nats://127.0.0.1:1") -> Path:
        """The configuration file: GOOD, with what ``text`` sets laid over it; by itself it names a NATS nobody runs."""
        tables: dict[str, Any] = {**GOOD, "nats": {**GOOD["nats"], "url": nats}}
        for name, value in tomllib.loads(text).items():
            tables[name] = {**tables.get(name, {}), **value} if isinstance(value, dict) else value
        return self.place.write("secbeat.toml", "\n".join(toml(tables)) + "\n")

    def words(self, service: str) -> list[str]:
        """The command that starts a service with the configuration file."""
        return ["secbeat", service, "--config", "secbeat.toml"]

    def refused(self, command: str | list[str], code: str, *words: str) -> Finished:
        """The start ends soon, with exit code 2 and one error that names all of ``words``; nothing is left running."""
        began = time.monotonic()
        ended = self.place.run(self.words(command) if isinstance(command, str) else command, seconds=START_SECONDS)
        spent = time.monotonic() - began
        assert ended.code == 2, f"{ended.code} after {spent:.1f} s\n{ended.stdout}\n{ended.stderr}"
        block = re.findall(r"^error.*(?:\n(?!\{).+)*", ended.stderr, re.MULTILINE)
        assert len(block) == 1, ended.stderr
        assert re.match(rf"error\[{code}\]: .+", block[0]), ended.stderr
        assert re.search(r"^  why:  \S.*", block[0], re.MULTILINE), ended.stderr
        assert re.search(r"^  fix:  \S.*", block[0], re.MULTILINE), ended.stderr
        for word in words:
            assert word in block[0], f"{word!r} is not in\n{block[0]}"
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
        assert self.left() == [], "something is left running"
        return ended

    def left(self) -> list[psutil.Process]:
        """Processes that belong to this place, but for what the test itself has started and not yet ended."""
        ours = {one.pid for one in self.place.started if one.running}
        return [process for process in self._processes() if process.pid not in ours and self._parents(process, ours)]

    def _processes(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.place.home) and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    @staticmethod
    def _parents(process: psutil.Process, ours: set[int]) -> bool:
        with suppress(psutil.Error):
            return not ours & {parent.pid for parent in process.parents()}
        return False

    def nats(self, *flags: str) -> str:
        """A NATS server started by hand; its URL."""
        port = free_port()
        words = ["nats-server", "--addr", "127.0.0.1", "--port", str(port), "-sd", str(self.place.root / "js"), *flags]
        self.place.start(words, name="nats-server").until_says("Server is ready")
        return f"nats://127.0.0.1:{port}"

    def secret(self, name: str, text: str, *, mode: int = 0o600) -> Path:
        """A file that holds a secret."""
        return self.place.write(name, f"{text}\n", mode=mode)

    def as_anybody(self) -> None:
        """From here on root's commands are bound by permissions, too."""
        if os.geteuid() == 0:
            self.place.prefix = [*self.place.prefix, *_AS_ANYBODY]


@pytest.fixture
def setup(place) -> Setup:
    return Setup(place)


@pytest.fixture
def taken() -> Iterator[str]:
    """An address on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"
