"""Two that work on one machine's directory: the second one waits, and says so when it waited in vain."""

from __future__ import annotations

import pytest

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
