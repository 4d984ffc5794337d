from __future__ import annotations

import uuid

import pytest

from orchestrator.fleet import legacy_unit

ONE = str(uuid.UUID(int=1))


def test_percent_becomes_a_fraction_by_the_form_of_the_message(fleet, legacy):
    node = fleet.add(legacy=True)
    assert fleet.registry.on_legacy(legacy(cpu_usage=0.5, memory_usage=50), unit="percent")
    assert (node.cpu, node.memory, node.connections) == (0.005, 0.5, 1)
    assert node.reported_status == "Active"


def test_a_pool_may_say_that_its_nodes_send_fractions(fleet, legacy):
    node = fleet.add(legacy=True)
    fleet.registry.on_legacy(legacy(cpu_usage=0.5, memory_usage=0.25), unit="fraction")
    assert (node.cpu, node.memory) == (0.5, 0.25)


@pytest.mark.parametrize(("setting", "unit"), [("auto", "percent"), ("percent", "percent"), ("fraction", "fraction")])
def test_auto_means_percent_as_the_original_sends_it(setting, unit):
    assert legacy_unit(setting) == unit


@pytest.mark.parametrize(("unit", "cpu"), [("percent", 100.01), ("percent", -0.1), ("fraction", 67.2)])
async def test_a_cpu_out_of_range_is_not_applied_but_the_node_lives(fleet, legacy, unit, cpu):
    node = fleet.add(legacy=True)
    fleet.registry.on_legacy(legacy(cpu_usage=10 if unit == "percent" else 0.1, memory_usage=1), unit=unit)
    await fleet.clock.advance(30)
    assert fleet.registry.on_legacy(legacy(cpu_usage=cpu, memory_usage=1), unit=unit)
    assert node.cpu == 0.1
    assert node.received == fleet.clock.monotonic()
    assert node.metrics_received == 0
    assert fleet.registry.counters["bad_field"] == 1


def test_an_unknown_node_is_told_so(fleet, legacy):
    assert not fleet.registry.on_legacy(legacy(), unit="percent")
    assert fleet.registry.counters["unknown"] == 1


@pytest.mark.parametrize("status", ["Dead", "Draining"])
@pytest.mark.parametrize(("state", "signals"), [("active", []), ("unreachable", [(ONE, "recovered")])])
def test_dead_and_draining_of_an_original_node_are_proofs_of_life(fleet, legacy, status, state, signals):
    node = fleet.add(legacy=True, state=state)
    fleet.registry.on_legacy(legacy(status=status), unit="percent")
    assert fleet.signals == signals
    assert (node.state, node.heard) == (state, True)


def test_its_final_heartbeat_is_believed(fleet, legacy):
    fleet.add(legacy=True)
    fleet.registry.on_legacy(legacy(status="Terminating"), unit="percent")
    assert fleet.signals == [(ONE, "terminating")]


async def test_requests_per_second_come_from_the_difference_of_two_heartbeats(fleet, legacy):
    node = fleet.add(legacy=True)
    fleet.registry.on_legacy(legacy(total_requests=1000), unit="percent")
    assert node.rps == 0
    await fleet.clock.advance(30)
    fleet.registry.on_legacy(legacy(total_requests=1600), unit="percent")
    assert (node.rps, node.requests) == (20.0, 1600)
    await fleet.clock.advance(30)
    fleet.registry.on_legacy(legacy(total_requests=3), unit="percent")
    assert node.rps == 0
