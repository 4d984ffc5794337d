"""The closed loop with real processes and a real store: up, join, drain, down, and kill -9 in between."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest


async def test_a_fleet_grows_shrinks_and_leaves_nothing_behind(cluster):
    await cluster.start()
    await cluster.until(lambda: cluster.all_ended(1))
    (op,) = await cluster.operations()
    assert (op["action"], op["state"], op["tracked"], op["reason"]) == (
        "create",
        "succeeded",
        True,
        "BELOW_MIN_FLEET_SIZE",
    )
    for node in cluster.nodes.values():
        node.cpu = 0.95
    await cluster.until(lambda: cluster.all_ended(2))
    assert len(await cluster.active()) == 2

    victim = next(iter(cluster.nodes))
    status, drained = await cluster.call("POST", f"/api/v1/nodes/{victim}/drain", {})
    assert (status, drained["action"]) == (202, "destroy")
    await cluster.until(lambda: cluster.state_of(drained["op_id"], "succeeded"))
    assert [len(told.told) for told in cluster.nodes.values() if told.node_id == victim] == [1]
    assert victim not in cluster.machines
    assert ("/deprovision", drained["op_id"]) in cluster.webhooks

    status, _ = await cluster.call("POST", "/api/v1/pools/default/retire", {})
    assert status == 200
    await cluster.until(lambda: not cluster.machines)
    await cluster.until(cluster.nothing_open)
    assert await cluster.active() == []
    keys = [entry.key for entry in await cluster.stored("node.")]
    assert keys == []
    assert len({op_id for _, op_id in cluster.webhooks}) == len(cluster.webhooks), "nothing was sent twice"

    log = cluster.log.read_text()
    assert "ResourceManager scaling decision" in log
    assert "HIGH_FLEET_CPU_LOAD" in log
    assert await cluster.stop() == 0
    text = log + (cluster.directory / "stderr.log").read_text()
    for secret in cluster.secret_texts():
        assert secret not in text


async def test_kill_9_while_a_machine_boots_makes_one_machine(cluster):
    cluster.may_boot.clear()
    await cluster.start()
    await cluster.until(lambda: cluster.webhooks)
    (op,) = await cluster.operations()
    assert op["state"] in {"pending", "accepted"}, "an operation was in flight"
    await cluster.kill()
    cluster.may_boot.set()
    await cluster.start()
    await cluster.until(lambda: cluster.state_of(op["op_id"], "succeeded"))
    assert [len(made) for made in cluster.machines.values()] == [1]
    assert {op_id for _, op_id in cluster.webhooks} == {op["op_id"]}
    assert len(await cluster.active()) == 1


async def test_kill_9_in_mid_drain_ends_the_same_operation(cluster):
    await cluster.start()
    await cluster.until(lambda: cluster.all_ended(1))
    victim = next(iter(cluster.nodes))
    cluster.may_leave.clear()
    _, drain = await cluster.call("POST", f"/api/v1/nodes/{victim}/drain", {})
    await cluster.until(lambda: cluster.state_of(drain["op_id"], "draining"))
    await cluster.kill()
    cluster.may_leave.set()
    await cluster.until(cluster.nodes[victim].ended.is_set)
    await cluster.start()
    await cluster.until(lambda: cluster.state_of(drain["op_id"], "succeeded"), within=60)
    assert victim not in cluster.machines
    await cluster.until(lambda: len(cluster.machines) == 1)
    assert len([one for one in cluster.webhooks if one[0] == "/deprovision"]) == 1


async def test_a_nats_restart_changes_nothing_and_the_loop_goes_on(cluster):
    await cluster.start()
    await cluster.until(lambda: cluster.all_ended(1))
    before = await cluster.operations()
    await cluster.nats.stop()
    await cluster.until(cluster.not_ready)
    await cluster.nats.start()
    await cluster.until(cluster.leads, within=60)
    assert await cluster.operations() == before
    _, view = await cluster.call("POST", "/api/v1/pools/default/scale", {"size": 2})
    assert view["override"]["size"] == 2
    await cluster.until(lambda: len(cluster.machines) == 2, within=60)


async def test_two_orchestrators_one_acts_and_the_other_takes_over(cluster):
    """The second has a state directory of its own, as on another machine."""
    await cluster.start()
    await cluster.until(lambda: cluster.all_ended(1))
    other = cluster.directory / "other"
    shutil.copytree(cluster.state / "secrets", other / "secrets")
    config = cluster.directory / "other.toml"
    config.write_text(
        cluster.config.read_text().replace(str(cluster.state), str(other)).replace("orchestrator.log", "other.log")
    )
    second = await cluster.spawn_process(config)
    try:
        log = cluster.directory / "logs" / "other.log"
        await cluster.until(lambda: log.exists() and "Listening at" in log.read_text())
        url = log.read_text().partition("Listening at ")[2].partition(",")[0]
        status, _ = await cluster.call("POST", "/api/v1/pools/default/scale", {"size": 2}, url=url)
        assert status == 503
        assert await cluster.stop() == 0
        await cluster.until(lambda: "leads with epoch 2" in log.read_text(), within=20)
        status, _ = await cluster.call("POST", "/api/v1/pools/default/scale", {"size": 2}, url=url)
        assert status == 200
    finally:
        second.kill()
        await second.wait()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("state_dir", 'state_dir = "/proc/nowhere"'), "STATE_NOT_WRITABLE"),
        (("url", 'url = "nats://127.0.0.1:9"\nconnect_timeout_seconds = 0.5'), "NATS_UNREACHABLE"),
        (("listen_addr", 'listen_addr = "0.0.0.0:0"'), "BIND_INSECURE"),
        (("account_file", ""), "CONFIG_INVALID"),
        (("creds_file", 'creds_file = "/nowhere"'), "SECRET_UNREADABLE"),
        (("min", "min = 9"), "CONFIG_INVALID"),
        (("heartbeat_interval_seconds", "hartbeat = 1"), "CONFIG_INVALID"),
    ],
)
async def test_a_start_that_cannot_be_ends_with_one_sentence_and_exit_code_2(cluster, change, code):
    key, line = change
    text = "\n".join(line if one.split(" ")[0] == key else one for one in cluster.config.read_text().splitlines())
    cluster.config.write_text(text)
    status, error = await cluster.failing_start()
    assert status == 2, error
    assert f"error[{code}]" in error
    assert "fix:" in error
    assert "Traceback" not in error


async def test_nats_without_jetstream_is_named_with_its_remedy(cluster):
    binary = Path(sys.executable).parent / "nats-server"
    plain = await asyncio.create_subprocess_exec(
        str(binary), "--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", str(cluster.directory),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        found = await cluster.until(lambda: list(cluster.directory.glob("nats-server_*.ports")))
        url = (await cluster.until(lambda: json.loads(found[0].read_text() or "{}").get("nats")))[0]
        keep = [line for line in cluster.config.read_text().splitlines() if "_file" not in line or "log_file" in line]
        cluster.config.write_text("\n".join(f'url = "{url}"' if line.startswith("url") else line for line in keep))
        status, error = await cluster.failing_start()
        assert (status, "error[NATS_NO_JETSTREAM]" in error) == (2, True), error
        assert "nats-server -js" in error
    finally:
        plain.kill()
        await plain.wait()


async def test_a_second_orchestrator_on_the_same_state_directory_is_refused(cluster):
    await cluster.start()
    status, error = await cluster.failing_start()
    assert (status, "error[STATE_IN_USE]" in error) == (2, True), error


async def test_the_metrics_have_the_guides_names(cluster):
    await cluster.start()
    await cluster.until(lambda: cluster.all_ended(1))
    text = await cluster.metrics()
    for line in (
        'secbeat_scaling_decisions_total{action="scale_up"} 1.0',
        'secbeat_scaling_decisions_total{action="scale_down"} 0.0',
        'secbeat_webhook_calls_total{status="success"} 1.0',
        "secbeat_fleet_size_current 1.0",
        "secbeat_node_terminations_total 0.0",
    ):
        assert line in text


async def test_sighup_applies_a_live_key(cluster):
    await cluster.start()
    await cluster.until(lambda: cluster.all_ended(1))
    cluster.config.write_text(cluster.config.read_text().replace("min = 1", "min = 2"))
    os.kill(cluster.process.pid, 1)
    await cluster.until(lambda: len(cluster.machines) == 2)
