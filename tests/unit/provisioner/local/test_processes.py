from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from provisioner.local.processes import identify, read_pid_file, send, wait_for_end, write_pid_file


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_the_start_time_is_psutils(sleeper):
    assert identify(sleeper.pid).started == pytest.approx(psutil.Process(sleeper.pid).create_time(), abs=0.02)


def test_a_pid_file_is_read_back_as_the_same_process(sleeper, tmp_path):
    write_pid_file(tmp_path / "pid", sleeper.pid)
    assert set(json.loads((tmp_path / "pid").read_text())) >= {"pid", "started"}
    assert read_pid_file(tmp_path / "pid") == identify(sleeper.pid)
    assert read_pid_file(tmp_path / "pid").running


def test_a_pid_that_was_reused_is_neither_running_nor_signalled(sleeper):
    earlier = replace(identify(sleeper.pid), ticks=identify(sleeper.pid).ticks - 1)
    assert not earlier.running
    send(earlier, signal.SIGKILL)
    assert wait_for_end(earlier, 5.0)
    assert sleeper.poll() is None


def test_a_pid_file_of_an_earlier_boot_means_nobody(sleeper):
    assert not replace(identify(sleeper.pid), boot="another").running


def test_a_process_that_waits_to_be_reaped_does_not_run(sleeper):
    identity = identify(sleeper.pid)
    send(identity, signal.SIGKILL)
    assert wait_for_end(identity, 10.0)
    assert not identity.running


def test_waiting_for_the_end_of_a_living_process_times_out(sleeper):
    assert not wait_for_end(identify(sleeper.pid), 0.01)


@pytest.mark.parametrize("text", ["", "{", "[]", "42", '{"pid": 1}'])
def test_a_pid_file_that_makes_no_sense_means_nobody(tmp_path, text):
    (tmp_path / "pid").write_text(text)
    assert read_pid_file(tmp_path / "pid") is None
