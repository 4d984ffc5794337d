"""Values are data: nothing in them is executed, and each becomes exactly one value of the node's configuration."""

from __future__ import annotations

import json
import tomllib

import pytest
import yaml

from secbeat import ids

LOOKUP = "{{ lookup('ansible.builtin.pipe', 'touch MARK') }}"
STRINGS = {
    "lookup": LOOKUP,
    "statement": "{% for c in ().__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "quote": '"\n[management]\nenabled = false\nx = "',
    "triple": '"""\n[nats]\nurl = "nats://evil"\n"""',
    "backslashes": r"\u0041 \" \\ C:\new",
    "control": "tab\tbell\x07del\x7fescape\x1b",
    "lines": "one\r\ntwo\u2028three\x85",
    "beyond": "😀 ÿ \u202e",
    "comment": "a # b = c",
    "shell": "$(touch MARK) `touch MARK`; touch MARK",
    "wildcard": "0.0.0.0:1",
}


def unsafe(name, value):
    quoted = yaml.safe_dump(value, default_style='"', width=10_000).strip()
    return f"{name}: !unsafe {quoted}\n"


def test_each_hostile_value_arrives_as_itself(ansible, tmp_path):
    strings = {key: value.replace("MARK", str(tmp_path / "mark")) for key, value in STRINGS.items()}
    settings = "".join(f"  {unsafe(key, value)}" for key, value in strings.items())
    variables = ansible.dummy() + "secbeat_node_settings:\n" + settings
    variables += "  nothing: null\n"
    variables += unsafe("secbeat_node_backend", strings["quote"])
    variables += unsafe("secbeat_node_server_url", strings["lookup"])
    variables += unsafe("secbeat_node_nats_url", strings["triple"])
    run = ansible.by_hand("scale_up.yml", variables=variables)
    assert run.code == 0, run.output
    config = tomllib.loads((ansible.directory / "node.toml").read_text(encoding="utf-8"))
    assert {key: config["node"][key] for key in strings} == strings
    assert "nothing" not in config["node"]
    assert config["node"]["backend"] == strings["quote"]
    assert config["node"]["server_url"] == strings["lookup"]
    assert config["nats"]["url"] == strings["triple"]
    assert "enabled" not in config["management"]
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("field", ["node_id", "pool", "op_id", "cluster_id"])
@pytest.mark.parametrize(
    "value", [LOOKUP, '--command=["touch", "MARK"]', "../../../etc"], ids=["lookup", "option", "path"]
)
def test_a_hostile_field_of_a_request_is_refused(ansible, tmp_path, field, value):
    fields = {"node_id": ansible.node_id, "pool": "default", "op_id": ids.new_op_id(), "cluster_id": ansible.node_id}
    fields[field] = value.replace("MARK", str(tmp_path / "mark"))
    lines = "".join(f"  {unsafe(key, text)}" for key, text in fields.items())
    site = json.dumps({"machines_dir": str(tmp_path / "machines"), "server_url": "http://127.0.0.1:1"})
    run = ansible.play("scale_up.yml", variables=f"{ansible.dummy()}secbeat_request:\n{lines}secbeat_site: {site}\n")
    assert run.code == 2
    assert ("node_id must be a lower-case UUID" in run.output) or ("MACHINE_INVALID" in run.output)
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "machines").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("secbeat_node_proxy_port", LOOKUP), ("secbeat_node_cpu_allowance", '1\nx = "'), ("secbeat_node_proxy_port", "0")],
)
def test_a_number_that_is_none_is_refused(ansible, tmp_path, name, value):
    run = ansible.by_hand("scale_up.yml", variables=ansible.dummy() + unsafe(name, value))
    assert run.code == 2
    assert not (tmp_path / "mark").exists()
    assert not (ansible.directory / "pid").exists()
