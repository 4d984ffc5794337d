from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from secbeat.errors import ConfigError
from secbeat.paths import StateDir, default_state_dir


def test_the_default_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SECBEAT_STATE", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_state_dir() == tmp_path / ".local" / "state" / "secbeat"
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert default_state_dir() == Path("/xdg/secbeat")
    monkeypatch.setenv("SECBEAT_STATE", "/mine")
    assert default_state_dir() == Path("/mine")


def test_a_new_directory_is_private(tmp_path):
    state = StateDir(tmp_path / "a" / "b").ensure()
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigError, match="STATE_NOT_WRITABLE"):
        StateDir(tmp_path / "state").ensure()
    with pytest.raises(ConfigError, match="STATE_NOT_WRITABLE"):
        StateDir(tmp_path / "state" / "below").ensure()


def test_a_lock_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(ConfigError, match="STATE_NOT_WRITABLE"):
        StateDir(tmp_path).lock()


def test_the_lock_has_one_holder_at_a_time(tmp_path):
    first = StateDir(tmp_path).lock()
    with pytest.raises(ConfigError, match="STATE_IN_USE") as refusal:
        StateDir(tmp_path).lock()
    assert str(tmp_path) in refusal.value.why
    first.unlock()
    second = StateDir(tmp_path).lock()
    second.unlock()
    second.unlock()


@pytest.mark.parametrize("content", [None, "", "{", "[]", "7", "\x00"])
def test_a_run_file_that_is_absent_or_broken_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert StateDir(tmp_path).read_run() is None


def test_a_run_file_is_read(tmp_path):
    (tmp_path / "run.json").write_text('{"v": 1, "pid": 7}')
    assert StateDir(tmp_path).read_run() == {"v": 1, "pid": 7}


def test_locks_of_different_names_do_not_exclude_each_other_and_a_refusal_names_the_holder(tmp_path):
    state, other = StateDir(tmp_path).ensure(), StateDir(tmp_path)
    state.lock("provisioner.lock", "another provisioner")
    other.lock()
    with pytest.raises(ConfigError) as refused:
        StateDir(tmp_path).lock("provisioner.lock", "another provisioner")
    assert refused.value.code == "STATE_IN_USE"
    assert f"another provisioner (pid {os.getpid()})" in refused.value.why
    state.unlock()
    StateDir(tmp_path).lock("provisioner.lock", "another provisioner").unlock()
    other.unlock()
