"""The environment of a job: where it puts what it leaves, and what stands in for a home that cannot be used."""

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace

import pytest

from provisioner.engine import environment


@pytest.fixture
def registered(monkeypatch):
    """Set the home that the user database knows."""

    def set_home(path):
        monkeypatch.setattr(pwd, "getpwuid", lambda _uid: SimpleNamespace(pw_dir=str(path)))

    return set_home


def test_what_a_job_leaves_in_its_temporary_directory_goes_with_its_private_one(tmp_path):
    made = environment.for_job("op/work-1", tmp_path / "work-1", tmp_path)
    assert made["TMPDIR"] == made["ANSIBLE_LOCAL_TEMP"] == str(tmp_path / "work-1" / "tmp")


def test_a_usable_home_is_kept(tmp_path, registered):
    registered(tmp_path)
    assert environment.substitute_home(tmp_path / "ours", {"HOME": str(tmp_path)}) is None
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("where", ["HOME", "database", "neither"])
def test_a_home_that_does_not_exist_is_replaced_whoever_names_it(tmp_path, registered, where):
    registered("/nonexistent" if where != "HOME" else tmp_path)
    environ = {"HOME": "/nonexistent"} if where == "HOME" else {"HOME": str(tmp_path)} if where == "database" else {}
    ours = tmp_path / "ours"
    assert environment.substitute_home(ours, environ) == ours
    assert ours.stat().st_mode & 0o777 == 0o700


def test_a_user_whom_no_database_knows_gets_a_home(tmp_path, monkeypatch):
    def unknown(_uid):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert environment.substitute_home(tmp_path / "ours", {"HOME": str(tmp_path)}) == tmp_path / "ours"


def test_tasks_files_go_to_the_home_of_the_machine_where_they_are_used(tmp_path):
    made = environment.for_job("op/work-1", tmp_path / "work-1", tmp_path, tmp_path / "ours")
    assert made["HOME"] == str(tmp_path / "ours")
    assert made["ANSIBLE_REMOTE_TMP"] == "$HOME/.ansible/tmp"


def test_the_operators_own_place_for_tasks_files_stays(tmp_path):
    (tmp_path / "ansible.cfg").write_text("[defaults]\nremote_tmp = /var/tmp/mine\n")
    assert "ANSIBLE_REMOTE_TMP" not in environment.for_job("op/work-1", tmp_path, tmp_path, tmp_path / "ours")


def test_without_a_substitute_the_home_is_that_of_the_service(tmp_path):
    made = environment.for_job("op/work-1", tmp_path, tmp_path)
    assert made["HOME"] == os.environ.get("HOME", "/")
    assert "ANSIBLE_REMOTE_TMP" not in made
