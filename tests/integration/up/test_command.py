"""`secbeat up` as people run it: a process, signals, what it prints, what it leaves."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import time

import psutil


def interrupted(process, seconds=90):
    process.send_signal(signal.SIGINT)
    return process.wait(seconds)


def test_it_starts_shows_where_everything_is_and_leaves_nothing(up, make_config):
    process = up.start(make_config())
    up.until(lambda: up.run_file and up.active())
    run = up.run_file
    lines = up.stdout.splitlines()
    assert len(lines) <= 8
    assert [line.partition(":")[0] for line in lines] == [
        "Orchestrator", "Provisioner", "Metrics", "NATS", "State", "Tokens", "Logs", "Stop",
    ]  # fmt: skip
    assert {line.index(line.partition(":")[2].strip()) for line in lines} == {14}
    assert run["url"] in lines[0]
    assert "kept" in lines[4]
    assert (up.state / "logs" / "orchestrator.log").stat().st_size > 0
    doctor = [sys.executable, "-m", "secbeat", "doctor", "--state", str(up.state), "-o", "json"]
    checks = json.loads(subprocess.run(doctor, stdout=subprocess.PIPE, check=True).stdout)["checks"]
    found = {check["name"]: check for check in checks}
    assert run["config"] in found["file"]["detail"], "what runs is checked, not the defaults"
    assert found["sync"]["status"] == "ok", "our own server puts every write on the disk, and the doctor can see it"
    assert stat.S_IMODE(up.state.stat().st_mode) == 0o700

    assert interrupted(process) == 0
    assert "Stopped" in up.stderr
    assert up.left() == []
    assert up.run_file is None
    assert list((up.state / "machines").iterdir()) == []


def test_a_second_start_on_the_same_state_is_clean(up, make_config):
    up.start(make_config())
    up.until(up.active)
    tokens = (up.state / "secrets" / "admin.token").read_text()
    assert interrupted(up.started[0]) == 0
    process = up.start(make_config())
    up.until(up.active)
    assert "Pool default works again" in up.stderr
    assert '"ERROR"' not in up.stderr
    assert "Traceback" not in up.stderr
    assert (up.state / "secrets" / "admin.token").read_text() == tokens
    assert interrupted(process) == 0
    assert up.left() == []


def test_a_second_ctrl_c_ends_at_once_and_the_next_start_takes_the_nodes_over(up, make_config):
    slow = make_config().replace("propagation_seconds = 0.2", "propagation_seconds = 300")
    process = up.start(slow)
    up.until(up.active)
    process.send_signal(signal.SIGINT)
    up.until(lambda: "local node left" in up.stderr)
    began = time.monotonic()
    assert interrupted(process) == 130
    assert time.monotonic() - began < 30
    assert "go on running" in up.stderr
    (machine,) = up.machines()
    pid = json.loads((machine / "pid").read_text())["pid"]
    assert psutil.pid_exists(pid)
    psutil.Process(pid).kill()


def test_services_of_a_killed_up_end_and_the_next_one_starts_on_the_same_ports(up, make_config):
    process = up.start(make_config())
    up.until(up.active)
    before = up.run_file
    (machine,) = up.machines()
    process.kill()
    process.wait()
    process = up.start(make_config())
    up.until(lambda: (up.run_file or {}).get("pid") == process.pid)
    assert {key: up.run_file[key] for key in ("url", "provisioner_url", "metrics_url", "nats_url")} == {
        key: before[key] for key in ("url", "provisioner_url", "metrics_url", "nats_url")
    }
    assert up.machines() == [machine]
    assert interrupted(process) == 0
    assert up.left() == []


def test_a_taken_port_is_named_with_its_key(up, make_config):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        text = make_config().replace('listen_addr = "127.0.0.1:0"', f'listen_addr = "{address}"', 1)
        assert up.start(text).wait(60) == 2
    assert f"orchestrator.listen_addr = {address}" in up.stderr
    assert "PORT_IN_USE" in up.stderr
    assert "Traceback" not in up.stderr


def test_a_state_directory_that_is_a_file_is_named(up, make_config):
    up.state.write_text("")
    assert up.start(make_config()).wait(60) == 2
    assert "STATE_NOT_WRITABLE" in up.stderr
    assert str(up.state) in up.stderr


def test_a_state_directory_in_use_is_refused(up, make_config):
    first = up.start(make_config(0))
    up.until(lambda: up.run_file)
    assert up.start(make_config(0)).wait(60) == 2
    assert "STATE_IN_USE" in up.stderr
    assert interrupted(first) == 0


def test_a_service_that_cannot_start_is_quoted(up, make_config):
    text = make_config().replace("[provisioner]", 'webhook_secret_file = "nowhere.secret"\n[provisioner]')
    assert up.start(text).wait(90) == 2
    assert up.stderr.count("error[") == 1
    assert "error[SECRET_UNREADABLE]" in up.stderr
    assert "why:  orchestrator: nowhere.secret" in up.stderr
    assert "Traceback" not in up.stderr
    assert up.left() == []


def test_an_interrupt_while_starting_leaves_nothing(up, make_config):
    process = up.start(make_config())
    up.until(lambda: "NATS is ready" in up.stderr)
    assert interrupted(process) == 130
    assert up.left() == []
    assert up.run_file is None


def test_on_a_terminal_there_is_a_live_view_and_ctrl_c_ends_it(up, make_config):
    keyboard, terminal = pty.openpty()
    os.set_blocking(keyboard, False)
    shown = bytearray()

    def read():
        try:
            while chunk := os.read(keyboard, 65536):
                shown.extend(chunk)
        except (BlockingIOError, OSError):
            pass
        return shown.decode(errors="replace")

    process = up.start(make_config(), terminal=terminal)
    try:
        up.until(lambda: "last decision" in read() and "default" in read().rpartition("last decision")[2])
        assert '{"time"' not in read()
        process.send_signal(signal.SIGINT)
        up.until(lambda: read() is not None and process.poll() is not None)
    finally:
        os.close(terminal)
    assert process.returncode == 0
    assert "Stopped" in read()
    os.close(keyboard)
