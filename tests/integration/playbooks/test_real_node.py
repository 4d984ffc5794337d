"""The playbooks by hand against a running instance, with the real node."""

from __future__ import annotations

import asyncio
import json

import pytest

from provisioner.local.directory import MachineDir
from secbeat.up import Instance

CONFIG = """
[orchestrator]
heartbeat_interval_seconds = 0.5
[pools.default]
min = 0
drain_deadline_seconds = 5
[nats]
legacy_no_auth = true
"""
VARIABLES = "secbeat_node_propagation_seconds: 0.2\nsecbeat_node_shutdown_grace_period: 5\n"


@pytest.fixture
async def instance(ansible):
    async with Instance(ansible.state, config_text=CONFIG, free_ports=True) as instance:
        yield instance


async def until(instance, condition):
    async with asyncio.timeout(60):
        while True:
            found = await instance.api.items("/api/v1/nodes")
            if condition(found):
                return found
            await asyncio.sleep(0.1)


async def play(ansible, instance, name, *words):
    variables = f"{VARIABLES}secbeat_node_server_url: {instance.urls.orchestrator}\n"
    variables += f"secbeat_node_nats_url: {instance.urls.nats}\n" if "join_file" not in str(words) else ""
    run = await asyncio.to_thread(ansible.by_hand, name, *words, variables=variables)
    assert run.code == 0, run.output
    return run


async def test_a_node_started_by_hand_registers_serves_and_leaves(ansible, instance):
    run = await play(ansible, instance, "scale_up.yml")
    (node,) = await until(instance, lambda nodes: [node for node in nodes if node["state"] == "active"])
    assert node["legacy"]
    assert node["public_ip"] == run.result["address"]
    process = MachineDir(ansible.directory).process()

    await play(ansible, instance, "scale_down.yml")
    assert not process.running
    assert not ansible.directory.exists()
    await until(instance, lambda nodes: not [node for node in nodes if node["state"] == "active"])


async def test_a_node_started_by_hand_joins_with_a_join_file(ansible, instance):
    join = await instance.api.post("/api/v1/pools/default/nodes")
    path = ansible.state / "join.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(join))
    object.__setattr__(ansible, "node_id", join["node_id"])
    await play(ansible, instance, "scale_up.yml", "-e", f"join_file={path}")
    (node,) = await until(instance, lambda nodes: [node for node in nodes if node["state"] == "active"])
    assert (node["node_id"], node["legacy"]) == (join["node_id"], False)
    assert not path.exists()
