"""Two that work on one machine's directory: the second one waits, and says so when it waited in vain."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from provisioner.local import teardown
from provisioner.local.directory import MachineDir
from secbeat import ids
from secbeat.errors import SecbeatError


def test_a_machine_that_stays_locked_is_busy(tmp_path):
    name = ids.machine_name("web", ids.new_node_id())
    (tmp_path / name).mkdir()
    one, other = MachineDir(tmp_path / name), MachineDir(tmp_path / name)
    with one.locked(0.1), pytest.raises(SecbeatError) as refused, other.locked(0.1):
        pass
    assert refused.value.code == "MACHINE_BUSY"


def test_a_process_that_outlives_sigkill_is_named(tmp_path, monkeypatch):
    name = ids.machine_name("web", ids.new_node_id())
    (tmp_path / name).mkdir()
    directory = MachineDir(tmp_path / name)
    sent = []
    monkeypatch.setattr(MachineDir, "process", lambda _self: SimpleNamespace(pid=4242))
    monkeypatch.setattr(teardown, "send", lambda process, number: sent.append((process.pid, number)))
    monkeypatch.setattr(teardown, "wait_for_end", lambda _process, _seconds: False)
    with pytest.raises(SecbeatError) as stuck:
        teardown.stop(directory, grace=0)
    assert (stuck.value.code, sent) == ("MACHINE_STUCK", [(4242, signal.SIGKILL)])
    assert directory.path.exists(), "what may still run keeps its directory"
