from __future__ import annotations

import random
import uuid

import pytest

from orchestrator.fleet import Registry
from orchestrator.scaling import summarise
from secbeat.settings import PoolSettings
from secbeat.testing import FakeClock
from secbeat.wire.decisions import Candidate, PoolSnapshot
from secbeat.wire.heartbeat import HeartbeatFrame, MetricsFrame, encode_frame
from secbeat.wire.nodes import NodeRecord

OP = "01K2XG3Q4R5S6T7V8W9X0Y1Z2B"


class Fleet:
    def __init__(self):
        self.clock = FakeClock()
        self.registry = Registry(clock=self.clock, default_interval=5)
        self.policy = PoolSettings()
        self.ids: list[str] = []

    def add(self, state="active", cpu=0.5, connections=10, memory=0.3, age=3600.0, **fields) -> str:
        node_id = str(uuid.UUID(int=len(self.ids) + 1))
        self.ids.append(node_id)
        at = self.clock.now()
        record = {"node_id": node_id, "pool": "web", "state": state, "state_since": at, "created_at": at, **fields}
        node = self.registry.put(NodeRecord.model_validate(record))
        node.joined -= age
        if cpu is not None:
            self.beat(node_id, cpu, connections, memory)
        return node_id

    def beat(self, node_id, cpu, connections=10, memory=0.3):
        metrics = MetricsFrame(cpu=cpu, memory=memory, connections=connections)
        frame = HeartbeatFrame(
            node_id=node_id, boot_id=str(uuid.uuid4()), seq=1, sent_at="", status="Active", pool="web", metrics=metrics
        )
        self.registry.on_frame(f"secbeat.hb.{node_id}", encode_frame(frame))

    def see(self, **options):
        nodes = self.registry.nodes("web")
        return summarise(nodes, pool="web", policy=self.policy, now=self.clock.monotonic(), **options)


@pytest.fixture
def fleet():
    return Fleet()


def test_an_empty_pool(fleet):
    snapshot = fleet.see()
    assert (snapshot.active, snapshot.capacity, snapshot.cpu, snapshot.memory) == (0, 0, None, None)


def test_states_are_counted_as_what_they_mean(fleet):
    for state in (
        "requested",
        "provisioning",
        "booting",
        "joining",
        "draining",
        "terminating",
        "failed",
        "quarantined",
    ):
        fleet.add(state, cpu=None)
    fleet.add("failed", cpu=None, destroy_op_id=OP)
    fleet.add("unreachable", cpu=None)
    fleet.add("warm")
    fleet.add("active")
    seen = fleet.see()
    assert (seen.active, seen.pending, seen.draining, seen.failed, seen.replaced) == (2, 4, 2, 2, 1)
    assert (seen.quarantined, seen.silent, seen.fresh, seen.capacity) == (1, 1, 1, 6)
    assert seen.dead == (fleet.ids[6],)


def test_the_mean_is_over_nodes_that_are_fresh_and_warm(fleet):
    fleet.add(cpu=0.2, memory=0.1, connections=1)
    fleet.add(cpu=0.6, memory=0.5, connections=2)
    fleet.add(cpu=1.0, connections=4, age=29)
    fleet.add(cpu=None)
    fleet.add("draining", cpu=1.0, connections=8)
    seen = fleet.see()
    assert (seen.active, seen.fresh, seen.warming, seen.silent) == (4, 2, 1, 0)
    assert (seen.cpu, seen.memory, seen.connections) == (0.4, 0.3, 7)


def test_three_nodes_exactly_at_the_threshold_are_not_above_it(fleet):
    for _ in range(3):
        fleet.add(cpu=0.8)
    assert 0.8 + 0.8 + 0.8 > 3 * 0.8 - 1e-12
    assert fleet.see().cpu == 0.8


async def test_a_silent_node_counts_and_carries_no_load(fleet):
    quiet = fleet.add(cpu=1.0)
    other = fleet.add(cpu=0.4)
    await fleet.clock.advance(20)
    fleet.beat(other, 0.4)
    seen = fleet.see()
    assert (seen.active, seen.silent, seen.fresh, seen.cpu) == (2, 1, 1, 0.4)
    assert [(c.node_id, c.blocked_by) for c in seen.candidates] == [(other, None), (quiet, "SILENT")]


async def test_nodes_that_have_not_been_heard_since_a_restart_are_neither_silent_nor_fresh(fleet):
    fleet.add(cpu=None)
    fleet.add(cpu=None)
    seen = fleet.see()
    assert (seen.active, seen.silent, seen.fresh, seen.cpu) == (2, 0, 0, None)
    assert {c.blocked_by for c in seen.candidates} == {"STALE_METRICS"}


async def test_a_silent_node_that_has_just_joined_is_silent_and_not_warming(fleet):
    fleet.add(cpu=0.5, age=0)
    await fleet.clock.advance(20)
    seen = fleet.see()
    assert (seen.active, seen.silent, seen.warming) == (1, 1, 0)


def test_candidates_come_in_the_order_in_which_they_would_leave(fleet):
    busy = fleet.add(connections=30)
    idle = fleet.add(connections=0)
    protected = fleet.add(connections=0, protected=True)
    warming = fleet.add(connections=0, age=1)
    middle = fleet.add(connections=7)
    assert [(c.node_id, c.connections, c.blocked_by) for c in fleet.see().candidates] == [
        (idle, 0, None),
        (middle, 7, None),
        (busy, 30, None),
        (warming, 0, "WARMING_UP"),
        (protected, 0, "PROTECTED"),
    ]


@pytest.mark.parametrize("wanted", [1, 8, 16, 99])
def test_candidates_are_the_fewest_connections_of_the_whole_pool_and_bounded(fleet, wanted):
    counts = list(range(100, 300))
    random.Random(7).shuffle(counts)
    for connections in counts:
        fleet.add(connections=connections)
    found = [candidate.connections for candidate in fleet.see(candidates=wanted).candidates]
    assert found == list(range(100, 100 + min(wanted, 16)))


@pytest.mark.parametrize(("nodes", "named"), [(3, 3), (20, 16), (32, 16), (33, 8), (200, 8)])
def test_a_small_pool_can_be_emptied_at_once_and_a_large_one_costs_little(fleet, nodes, named):
    for connections in range(nodes):
        fleet.add(connections=connections)
    assert [candidate.connections for candidate in fleet.see().candidates] == list(range(named))


def test_a_hundred_protected_nodes_do_not_hide_the_one_that_may_leave(fleet):
    for _ in range(100):
        fleet.add(connections=0, protected=True)
    free = fleet.add(connections=500)
    assert fleet.see().candidates[0].node_id == free


def test_the_snapshot_stays_bounded_when_everything_is_wrong(fleet):
    for _ in range(40):
        fleet.add("failed", cpu=None)
        fleet.add("unreachable", cpu=None)
    seen = fleet.see()
    assert (seen.failed, len(seen.dead), len(seen.candidates)) == (40, 16, 16)
    assert len(seen.encode()) < 4000


def test_a_snapshot_is_what_validation_would_have_made_of_it(fleet):
    for state in ("active", "requested", "draining", "failed", "quarantined", "unreachable"):
        fleet.add(state=state)
    fleet.add(protected=True)
    fleet.add(cpu=None)
    fleet.add(age=1)
    seen = fleet.see()
    assert len(seen.candidates) > 2
    assert seen.dead
    assert seen == PoolSnapshot.model_validate(seen.model_dump())
    assert seen.model_fields_set == PoolSnapshot.model_fields.keys()
    assert all(one.model_fields_set == Candidate.model_fields.keys() for one in seen.candidates)
