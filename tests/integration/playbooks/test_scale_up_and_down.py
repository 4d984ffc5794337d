from __future__ import annotations

import json
import socket
import tomllib
import uuid

import yaml

from provisioner.local import list_machines
from provisioner.local.directory import MachineDir
from secbeat import ids


def request(ansible, action="create", *, signed=True, **more):
    """The extra variables that the provisioner writes; only a signed request comes with a join file."""
    fields = {
        "op_id": ids.new_op_id(),
        "node_id": ansible.node_id,
        "pool": "default",
        "cluster_id": str(uuid.uuid4()),
        "name": f"default-{ansible.node_id[:8]}",
        "action": action,
        "reason": "HIGH_FLEET_CPU_LOAD",
    } | more
    lines = [f"  {key}: !unsafe {json.dumps(value)}" for key, value in fields.items()]
    site = {"machines_dir": str(ansible.state / "machines"), "server_url": "http://127.0.0.1:4030", "jobs_dir": "/j"}
    if signed and action == "create":
        site["join_file"] = str(ansible.directory / "join.json")
    return "\n".join(["secbeat_request:", *lines, f"secbeat_site: {json.dumps(site)}"]) + "\n"


def test_a_node_comes_and_goes_by_hand(ansible):
    up = ansible.by_hand("scale_up.yml", variables=ansible.dummy())
    assert up.code == 0, up.output
    assert set(up.result) == {"id", "name", "address", "proxy_port", "management_port"}
    assert (up.result["id"], up.result["name"]) == (ansible.node_id, ansible.directory.name)
    socket.create_connection((up.result["address"], up.result["proxy_port"]), timeout=5).close()

    again = ansible.by_hand("scale_up.yml", variables=ansible.dummy())
    assert again.result == up.result
    assert "changed=0" in again.output

    process = MachineDir(ansible.directory).process()
    down = ansible.by_hand("scale_down.yml")
    assert down.code == 0, down.output
    assert down.result == {"id": ansible.node_id, "name": ansible.directory.name, "gone": True}
    assert not process.running
    assert not ansible.directory.exists()

    again = ansible.by_hand("scale_down.yml")
    assert again.result == down.result
    assert "changed=0" in again.output


def test_a_node_by_hand_registers_in_the_originals_form_with_a_token_of_its_own(ansible):
    ansible.by_hand("scale_up.yml", variables=ansible.dummy())
    config = tomllib.loads((ansible.directory / "node.toml").read_text())
    assert "join_file" not in config["node"]
    token = ansible.state / "secrets" / "management.token"
    assert config["management"]["auth_token_file"] == str(token)
    assert token.exists()


def test_a_join_file_may_be_named_relative_to_where_one_stands(ansible):
    (ansible.state / "join.json").write_text("{}")
    words = ["-e", "pool=default", "-e", f"node_id={ansible.node_id}", "-e", "join_file=join.json"]
    run = ansible.play("scale_up.yml", *words, variables=ansible.dummy(), cwd=ansible.state)
    assert run.code == 0, run.output
    config = tomllib.loads((ansible.directory / "node.toml").read_text())
    assert config["node"]["join_file"] == str(ansible.state / "join.json")
    assert "auth_token_file" not in config["management"]


def test_a_request_without_a_join_file_makes_a_node_of_the_originals_form(ansible):
    run = ansible.play("scale_up.yml", variables=request(ansible, signed=False) + ansible.dummy())
    assert run.code == 0, run.output
    config = tomllib.loads((ansible.directory / "node.toml").read_text())
    assert "join_file" not in config["node"]
    assert "auth_token_file" in config["management"]
    assert "allow_default_token" not in config["management"]


def test_the_provisioners_request_makes_the_machine_that_it_names(ansible):
    variables = request(ansible) + ansible.dummy()
    run = ansible.play("scale_up.yml", variables=variables)
    assert run.code == 0, run.output
    config = tomllib.loads((ansible.directory / "node.toml").read_text())
    assert config["node"]["join_file"] == str(ansible.directory / "join.json")
    assert config["node"]["server_url"] == "http://127.0.0.1:4030"
    asked = yaml.safe_load(variables.replace("!unsafe ", ""))["secbeat_request"]
    (machine,) = list_machines(ansible.state / "machines")
    assert (machine.node_id, machine.op_id, machine.cluster_id) == (
        ansible.node_id,
        asked["op_id"],
        asked["cluster_id"],
    )
    assert machine.running

    down = ansible.play("scale_down.yml", variables=request(ansible, "destroy"))
    assert down.result["gone"] is True
    assert list_machines(ansible.state / "machines") == []


def test_a_node_that_dies_fails_the_play_with_its_last_words(ansible):
    run = ansible.by_hand("scale_up.yml", variables=ansible.dummy("die"))
    assert run.code == 2
    assert "MACHINE_DIED" in run.output
    assert "the disk is on fire" in run.output


def test_a_file_in_place_of_the_directory_fails_the_play_with_its_name(ansible):
    ansible.directory.parent.mkdir()
    ansible.directory.write_text("")
    run = ansible.by_hand("scale_up.yml", variables=ansible.dummy())
    assert run.code == 2
    assert "MACHINE_DIRECTORY" in run.output
    assert str(ansible.directory) in run.output


def test_an_unknown_target_is_refused_before_anything_happens(ansible):
    run = ansible.by_hand("scale_up.yml", "-e", "secbeat_node_target=mars", variables=ansible.dummy())
    assert run.code == 2
    assert "secbeat_node_target must be one of: local, got: mars" in run.output
    assert not ansible.directory.exists()


def test_a_request_without_a_node_says_how_to_name_one(ansible):
    run = ansible.play("scale_up.yml", "-e", "pool=default")
    assert run.code == 2
    assert "node_id must be a lower-case UUID" in run.output


def test_every_default_is_described_as_it_is(ansible):
    role = ansible.root / "playbooks" / "roles" / "secbeat_node"
    options = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    assert set(options) == set(defaults) | {"secbeat_node_id", "secbeat_node_pool"}
    plain = {name: value for name, value in defaults.items() if "secbeat_" not in str(value)}
    assert {name: options[name]["default"] for name in plain} == plain
