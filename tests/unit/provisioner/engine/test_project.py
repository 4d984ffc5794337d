from __future__ import annotations

import pytest

from provisioner.engine.project import Project
from secbeat.errors import ConfigError


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "project"
    (base / "playbooks" / "roles" / "r" / "tasks").mkdir(parents=True)
    (base / "inventories" / "local").mkdir(parents=True)
    (base / "playbooks" / "scale_up.yml").write_text("- hosts: localhost\n")
    (base / "playbooks" / "roles" / "r" / "tasks" / "main.yml").write_text("[]")
    (base / "inventories" / "local" / "hosts.yml").write_text("all:\n")
    (base / "inventories" / "lab.ini").write_text("localhost\n")
    (tmp_path / "outside.yml").write_text("secret")
    return base


def test_names_are_found_below_their_folders(root):
    project = Project(root)
    assert project.playbook("scale_up") == root / "playbooks" / "scale_up.yml"
    assert project.inventory("local") == root / "inventories" / "local"
    assert project.inventory("lab") == root / "inventories" / "lab.ini"


@pytest.mark.parametrize(
    "name",
    ["--version", "-i", "../outside", "/etc/passwd", "scale_up.yml", "", ".", "..", "a/b", "a\0b", "x" * 64, "@file"],
)
def test_what_is_no_name_is_refused(root, name):
    with pytest.raises(ConfigError) as caught:
        Project(root).playbook(name)
    assert caught.value.code == "PLAYBOOK_NOT_FOUND"


def test_a_link_that_leads_out_is_not_followed(root):
    (root / "playbooks" / "evil.yml").symlink_to(root.parent / "outside.yml")
    with pytest.raises(ConfigError) as caught:
        Project(root).playbook("evil")
    assert "leads out" in caught.value.why
    with pytest.raises(ConfigError):
        Project(root).digest("local")


def test_a_link_within_the_project_is_fine(root):
    (root / "playbooks" / "alias.yml").symlink_to("scale_up.yml")
    assert Project(root).playbook("alias") == root / "playbooks" / "scale_up.yml"


@pytest.mark.parametrize(
    "place", ["playbooks/scale_up.yml", "playbooks/roles/r/tasks/main.yml", "inventories/local/hosts.yml"]
)
def test_the_digest_changes_with_every_file_that_a_run_reads(root, place):
    project = Project(root)
    before = project.digest("local")
    assert Project(root).digest("local") == before
    (root / place).write_text("something longer than before")
    assert project.digest("local") != before


def test_the_digest_does_not_change_with_what_no_run_reads(root):
    project = Project(root)
    before = project.digest("local")
    (root / "playbooks" / "roles" / "r" / "molecule").mkdir()
    (root / "playbooks" / "roles" / "r" / "molecule" / "x.yml").write_text("x")
    (root / "inventories" / "lab.ini").write_text("other\n")
    assert project.digest("local") == before
