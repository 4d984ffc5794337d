"""A machine for the guide alone: its fixed ports, its working directory, its commands as they stand in phase6.md."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from secbeat.auth import TokenBook
from tests.acceptance.support import Place, Running, skip_unless_ci, until

PORTS = (4222, 8222, 3030, 9091, 8080, 8443, 9090, 9999, 8000)
TOKEN = "5c1d0f9e7a3b4d6688aa10cc2e44f1b7"
_GUIDE = Path(__file__).with_name("phase6.md")
_LO_UP = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x49))  # SIOCSIFFLAGS: UP, LOOPBACK, RUNNING
print("up", flush=True)
sys.stdin.read()
"""


def blocks(heading: str, language: str = "bash") -> list[str]:
    """The fenced blocks below a heading of the guide."""
    level = heading.split(" ", 1)[0]
    _, _, below = _GUIDE.read_text().partition(f"\n{heading}\n")
    assert below, f"the guide has no {heading!r}"
    section = re.split(rf"^#{{1,{len(level)}}} ", re.sub(r"^# ", "\0 ", below, flags=re.MULTILINE), flags=re.MULTILINE)
    return [
        found.replace("\0 ", "# ") for found in re.findall(rf"```{language}\n(.*?)```", section[0], flags=re.DOTALL)
    ]


def commands(heading: str) -> list[str]:
    """The commands below a heading: comments and empty lines part them."""
    (block,) = blocks(heading)
    if "python3 -c" in block:
        return [block.split("\n", 1)[1]]
    parts = re.split(r"^#.*\n|\n\n", block, flags=re.MULTILINE)
    return [part.strip() for part in parts if part.strip()]


@contextmanager
def own_network() -> Iterator[list[str]]:
    """The words that enter a network namespace with a loopback interface of its own.

    Raises:
        OSError: this user or this kernel cannot make one.
    """
    for kinds, more in ((("--net",), ()), (("--user", "--map-root-user", "--net"), ("--preserve-credentials",))):
        with subprocess.Popen(
            ["unshare", *kinds, sys.executable, "-c", _LO_UP],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as holder:  # fmt: skip
            if holder.stdout.readline() == b"up\n":
                enter = [kind for kind in kinds if kind != "--map-root-user"]
                yield ["nsenter", f"--target={holder.pid}", *enter, *more, "--"]
                return
    raise OSError(errno.EPERM, "no network namespace")


@contextmanager
def shared_network() -> Iterator[list[str]]:
    """The host's own ports, for one test at a time; skips where somebody else uses them."""
    with (Path(tempfile.gettempdir()) / "secbeat-guide-ports.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for port in PORTS:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("", port))
                except OSError:
                    skip_unless_ci(f"port {port} of the guide is taken, and network namespaces cannot be made here")
        yield []


class Guide(Place):
    """Terminals of one machine on which the guide is followed."""

    read_token = ""

    def configure(self, *, orchestrator: str = "", node: str = "", token: str = TOKEN, **changes: Any) -> None:
        """The guide's two files, with a token of one's own and the changes that make the test fast."""
        (self.home / ".curlrc").write_text('write-out = "\\n[%{http_code}]\\n"\n')
        (flat,), (management,) = blocks("### Orchestrator Configuration", "toml"), blocks(
            "### Mitigation Node Configuration", "toml"
        )  # fmt: skip
        for key, value in changes.items():
            flat, count = re.subn(rf"^{key} = [^#\n]*", f"{key} = {json.dumps(value)} ", flat, flags=re.MULTILINE)
            assert count == 1, key
        (literal,) = re.findall(r'auth_token = "(.*)"', management)
        self.write("config/orchestrator.toml", f'{flat}{orchestrator}\n[management]\nauth_token = "{token}"\n')
        self.read_token = TokenBook.issue(
            self.state_home / "secbeat" / "secrets" / "tokens.json", name="test", scope="read"
        )
        mine = management.replace(literal, token).replace("0.0.0.0:9999", "127.0.0.1:9999")
        self.write("config/default.toml", f"{mine}[node]\nregister_jitter_seconds = 0\n{node}\n")

    def typed(self, command: str, *, seconds: float = 60.0) -> str:
        """Type a command; what it printed."""
        done = self.run(command, seconds=seconds)
        assert done.code == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{self.said()}"
        return done.stdout

    def stats(self) -> dict[str, Any]:
        """What the guide's command for the fleet's statistics shows."""
        (command, _) = commands("### 1. Test Resource Manager")
        body, _, status = self.typed(command).strip().rpartition("\n")
        assert status == "[200]", body
        return json.loads(body)

    def get(self, path: str, *, token: str = "") -> Any:
        """An answer of the orchestrator."""
        header = f"-H 'Authorization: Bearer {token}'" if token else ""
        body, _, status = self.typed(f"curl -s {header} http://127.0.0.1:3030{path}").strip().rpartition("\n")
        assert status == "[200]", body
        return json.loads(body)

    def operations(self, action: str) -> list[dict[str, Any]]:
        """The orchestrator's operations of one kind, the oldest first."""
        found = self.get("/api/v1/operations", token=self.read_token)["items"]
        return sorted((op for op in found if op["action"] == action), key=lambda op: op["op_id"])

    def webhooks(self, receiver: Running) -> list[dict[str, Any]]:
        """What the guide's receiver has printed."""
        return [json.loads(line) for line in re.findall(r"^Received webhook: (.*)$", receiver.stdout, re.MULTILINE)]

    def follow(self, command: str, *words: str, seconds: float = 30.0) -> str:
        """Type a command that follows a file, on a terminal, until these words were seen; then end it."""
        keyboard, terminal = pty.openpty()
        os.set_blocking(keyboard, False)
        seen = bytearray()

        def shown() -> str:
            try:
                while chunk := os.read(keyboard, 65536):
                    seen.extend(chunk)
            except BlockingIOError:
                pass
            return seen.decode(errors="replace")

        one = self.start(command, stdin=terminal, stdout=terminal, stderr=terminal)
        try:
            until(lambda: all(word in shown() for word in words), seconds, f"{command} shows {words}", diagnosis=shown)
        finally:
            one.kill()
            os.close(terminal)
            os.close(keyboard)
        return seen.decode(errors="replace")

    def terminal(self, command: str, words: str) -> Running:
        """Type a command that stays; until it says that it is ready."""
        one = self.start(command)
        one.until_says(words, 60)
        return one

    def start_all(self, *, receiver: bool = False) -> dict[str, Running]:
        """The guide's manual start-up, with our command for each of cargo's, in its order."""
        nats, *services = commands("### Manual startup")
        assert [command.rpartition(" ")[2] for command in services] == ["run", "test-origin", "mitigation-node"]
        started = {"nats": self.terminal(f"{nats} -js", "Server is ready")}
        if receiver:
            started["receiver"] = self.receiver()
        started["orchestrator"] = self.terminal("secbeat orchestrator --config config/orchestrator.toml", "leads with")
        started["origin"] = self.terminal("secbeat origin", "istening")
        started["node"] = self.terminal("secbeat node --config config/default.toml", "Registered as")
        return started

    def receiver(self) -> Running:
        """The guide's own webhook receiver."""
        (command,) = commands("### 4. Test Webhook Receiver")
        return self.terminal(command, "Webhook receiver listening on port 8000...")


@pytest.fixture
def guide(tmp_path) -> Iterator[Guide]:
    """A machine of which only the guide's processes use the ports."""
    with ExitStack() as stack:
        try:
            words = stack.enter_context(own_network())
        except OSError:
            words = stack.enter_context(shared_network())
        # nats-server -js keeps its store below TMPDIR.
        made = Guide(tmp_path, words, {"TMPDIR": str(tmp_path)})
        stack.callback(made.close)
        yield made
