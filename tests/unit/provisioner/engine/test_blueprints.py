from __future__ import annotations

import pytest

from provisioner.engine.blueprints import Blueprints
from provisioner.engine.project import Project
from secbeat.errors import ConfigError
from secbeat.settings import BlueprintSettings


@pytest.fixture
def root(tmp_path):
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "inventories" / "local").mkdir(parents=True)
    for name in ("scale_up", "scale_down"):
        (tmp_path / "playbooks" / f"{name}.yml").write_text(f"- name: {name}\n")
    (tmp_path / "inventories" / "local" / "hosts.yml").write_text("all:\n")
    return tmp_path


def make(root, **settings):
    return Blueprints({"default": BlueprintSettings(**settings)}, Project(root), root / "revisions")


def test_an_unknown_blueprint_names_those_that_exist(root):
    with pytest.raises(ConfigError) as caught:
        make(root).current("nope")
    assert caught.value.code == "BLUEPRINT_UNKNOWN"
    assert "default" in caught.value.why


def test_a_reserved_variable_stops_the_start(root):
    with pytest.raises(ConfigError) as caught:
        make(root, variables={"ansible_connection": "local"}).check()
    assert caught.value.code == "BLUEPRINT_INVALID"
    assert "blueprints.default.variables.ansible_connection" in caught.value.why


def test_a_missing_playbook_stops_the_start(root):
    (root / "playbooks" / "scale_down.yml").unlink()
    with pytest.raises(ConfigError) as caught:
        make(root).check()
    assert caught.value.code == "PLAYBOOK_NOT_FOUND"


def test_the_digest_tells_kinds_of_machines_apart_and_ignores_limits(root):
    digest = make(root).current("default").digest
    assert make(root, max_machines=99, create_timeout_seconds=5).current("default").digest == digest
    assert make(root, variables={"image": "x"}).current("default").digest != digest


def test_a_kept_revision_is_what_destroys_its_machines_after_an_edit(root):
    blueprints = make(root, variables={"image": "one"})
    old = blueprints.current("default")
    blueprints.keep(old)
    (root / "playbooks" / "scale_down.yml").write_text("- name: edited\n")
    found = blueprints.of_machine("default", old.digest)
    assert found.digest == old.digest
    assert found.playbook("destroy").read_text() == "- name: scale_down\n"
    assert found.settings.variables == {"image": "one"}


def test_a_kept_revision_survives_the_removal_of_its_blueprint(root):
    blueprints = make(root)
    old = blueprints.current("default")
    blueprints.keep(old)
    later = Blueprints({"other": BlueprintSettings()}, Project(root), root / "revisions")
    assert later.of_machine("default", old.digest).playbook("destroy").exists()


def test_an_unedited_project_is_run_itself_and_not_its_copy(root):
    blueprints = make(root)
    current = blueprints.current("default")
    blueprints.keep(current)
    assert blueprints.of_machine("default", current.digest).project.root == root


def test_revisions_are_kept_until_their_last_machine_is_gone(root):
    blueprints = make(root)
    old = blueprints.current("default")
    blueprints.keep(old)
    (root / "playbooks" / "scale_up.yml").write_text("- name: edited\n")
    blueprints.forget({old.digest})
    assert (root / "revisions" / old.digest).is_dir()
    blueprints.forget(set())
    assert not (root / "revisions" / old.digest).exists()


def test_a_copy_of_a_revision_is_private(root):
    blueprints = make(root)
    current = blueprints.current("default")
    blueprints.keep(current)
    kept = root / "revisions" / current.digest / "blueprint.json"
    assert kept.stat().st_mode & 0o777 == 0o600
