"""kill -9 of nodes, and outages in which nobody may be judged."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.acceptance.crashes.fleet import eventually

pytestmark = pytest.mark.timeout(200)


async def test_a_killed_node_is_replaced_and_its_directory_removed(make_fleet):
    fleet = make_fleet()
    await fleet.start()
    (node,) = await fleet.fleet_of(1)
    (process,) = fleet.running()
    process.kill()

    async def replaced():
        return [one for one in await fleet.active(1) if one["node_id"] != node["node_id"]]

    await eventually(replaced, "a replacement")
    first, second = await fleet.operations("create")
    assert (first["node_id"], first["reason"]) == (node["node_id"], "BELOW_MIN_FLEET_SIZE")
    assert (second["reason"], second["failed_node_id"]) == ("UNEXPECTED_NODE_FAILURE", node["node_id"])
    (removed,) = await fleet.operations("destroy")
    assert (removed["node_id"], removed["reason"]) == (node["node_id"], "UNEXPECTED_NODE_FAILURE")
    await fleet.check(creates=2, destroys=1)
    await fleet.end()


async def test_a_node_killed_before_its_job_has_ended_is_replaced(make_fleet):
    fleet = make_fleet()
    await fleet.start(shut=("created",))
    op = await fleet.in_flight("create", "created")
    path = f"/api/v1/nodes/{op['node_id']}"
    await fleet.reaches(path, "active")
    assert (await fleet.in_flight("create", "created"))["op_id"] == op["op_id"]
    (process,) = fleet.running()
    process.kill()
    fleet.open("created")

    async def replaced():
        return [one for one in await fleet.active(1) if one["node_id"] != op["node_id"]]

    await eventually(replaced, "a replacement")
    assert [path.name for path in fleet.machines] == [path.name for path in fleet.machines if path.name in fleet.names]
    assert len(fleet.machines) == len(fleet.running()) == 1
    assert len(fleet.names) == 2
    assert len(await fleet.operations("create")) == 2
    await fleet.end()


async def test_a_node_killed_in_mid_drain_is_torn_down_by_the_same_operation(make_fleet):
    fleet = make_fleet(secbeat_node_propagation_seconds=8)
    await fleet.start()
    (node,) = await fleet.fleet_of(1)
    (process,) = fleet.running()
    drain = await fleet.instance.api.post(f"/api/v1/nodes/{node['node_id']}/drain")
    await fleet.reaches(f"/api/v1/operations/{drain['op_id']}", "draining")
    assert process.is_running()
    process.kill()
    await fleet.reaches(f"/api/v1/operations/{drain['op_id']}", "succeeded")
    await fleet.fleet_of(1)
    await fleet.check(creates=2, destroys=1)


async def test_ten_seconds_without_nats_change_nothing_in_the_fleet(make_fleet):
    fleet = make_fleet(minimum=2)
    await fleet.start()
    before = sorted(node["node_id"] for node in await fleet.fleet_of(2))
    processes = {process.pid for process in fleet.running()}
    pid = fleet.instance.pids()["nats"]
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(10)  # an outage is a time, not an event
    finally:
        os.kill(pid, signal.SIGCONT)
    await eventually(lambda: fleet.instance.api.ready(fleet.instance.urls.orchestrator), "leadership")
    after = await fleet.fleet_of(2)
    # Longer than a verdict takes once heartbeats are trusted again.
    await asyncio.sleep(5)
    assert sorted(node["node_id"] for node in after) == before
    assert {process.pid for process in fleet.running()} == processes
    assert len(await fleet.operations()) == 2, "only those that made the fleet"
    await fleet.check(creates=2, destroys=0)
    # And the loop goes on.
    await fleet.instance.api.post("/api/v1/pools/default/scale", {"size": 3})
    await fleet.fleet_of(3)
    await fleet.check(creates=3, destroys=0)
