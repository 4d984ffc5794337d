"""kill -9 of each part while operations are in flight: one machine for each of them, whatever happens."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.timeout(200)

VICTIMS = ("orchestrator", "provisioner", "nats", "job", "fork server")


@pytest.mark.parametrize("victim", VICTIMS)
async def test_operations_in_flight_survive_kill_9_and_make_one_machine_each(make_fleet, victim):
    fleet = make_fleet()
    await fleet.start(shut=("create", "created"))
    create = await fleet.in_flight("create", "create")
    assert fleet.running() == [], "in flight, and no machine yet"
    await fleet.kill(victim)
    assert (await fleet.in_flight("create", "create"))["op_id"] == create["op_id"]
    fleet.open("create")

    await fleet.in_flight("create", "created")
    assert len(fleet.running()) == 1, "in flight, with a machine that nobody has reported yet"
    await fleet.kill(victim)
    assert (await fleet.in_flight("create", "created"))["op_id"] == create["op_id"]
    fleet.open("created")
    (node,) = await fleet.fleet_of(1)
    assert node["op_id"] == create["op_id"]
    await fleet.check(creates=1, destroys=0)

    fleet.shut("destroy")
    fleet.shut("created")
    drain = await fleet.instance.api.post(f"/api/v1/nodes/{node['node_id']}/drain")
    assert (await fleet.in_flight("destroy", "destroy"))["op_id"] == drain["op_id"]
    replacing = await fleet.in_flight("create", "created")
    await fleet.kill(victim)
    assert (await fleet.in_flight("destroy", "destroy"))["op_id"] == drain["op_id"]
    assert (await fleet.in_flight("create", "created"))["op_id"] == replacing["op_id"]
    fleet.open("destroy")
    fleet.open("created")
    (node,) = await fleet.fleet_of(1)
    assert node["op_id"] == replacing["op_id"]
    await fleet.check(creates=2, destroys=1)
    await fleet.end()


@pytest.mark.parametrize("victim", ["orchestrator", "nats"])
async def test_a_drain_survives_kill_9_of_whoever_asked_for_it(make_fleet, victim):
    fleet = make_fleet(secbeat_node_propagation_seconds=6)
    await fleet.start()
    (old,) = await fleet.fleet_of(1)
    drain = await fleet.instance.api.post(f"/api/v1/nodes/{old['node_id']}/drain")
    path = f"/api/v1/operations/{drain['op_id']}"
    assert (await fleet.reaches(path, "draining"))["ended_at"] is None
    assert fleet.running(), "the node was still draining"
    await fleet.kill(victim)
    await fleet.reaches(path, "succeeded")
    await fleet.fleet_of(1)
    await fleet.check(creates=2, destroys=1)
