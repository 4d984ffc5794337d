from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

import pytest

from orchestrator.fleet import listing
from secbeat.clock import wire_time
from secbeat.wire.jobs import Machine
from secbeat.wire.nodes import NodeView

ORIGINAL = ["node_id", "public_ip", "last_heartbeat", "status", "metrics", "registered_at", "config"]


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


def rows(fleet, **options) -> list[dict]:
    chosen = fleet.registry.chosen(pool=options.pop("pool", None))
    return json.loads(b"".join(fleet.registry.listing(chosen, **options)))


async def test_a_row_begins_as_the_original_has_it(fleet):
    fleet.add()
    await fleet.clock.advance(1.5)
    fleet.beat()
    (row,) = rows(fleet)
    assert list(row)[:7] == ORIGINAL
    assert {key: row[key] for key in ORIGINAL} == {
        "node_id": uid(1),
        "public_ip": "127.0.0.1",
        "last_heartbeat": "2026-01-01T00:00:01.500Z",
        "status": "Active",
        "metrics": {
            "cpu_usage": 42.0,
            "memory_usage": 31.0,
            "packets_per_second": 0,
            "active_connections": 12,
            "total_requests": 0,
            "ddos_blocks": 0,
            "waf_blocks": 0,
        },
        "registered_at": "2026-01-01T00:00:00.000Z",
        "config": {"node_type": "mitigation-node", "region": None, "tags": []},
    }


def test_a_row_of_an_original_node_has_its_own_numbers(fleet, legacy):
    fleet.add(legacy=True)
    fleet.registry.on_legacy(legacy(), unit="percent")
    (row,) = rows(fleet)
    assert row["metrics"] == {
        "cpu_usage": 67.2,
        "memory_usage": 3.6,
        "packets_per_second": 10,
        "active_connections": 1,
        "total_requests": 100,
        "ddos_blocks": 2,
        "waf_blocks": 1,
    }


@pytest.mark.parametrize("state", ["joining", "active", "draining", "failed", "requested"])
@pytest.mark.parametrize("beats", [False, True])
@pytest.mark.parametrize("machine", [False, True])
async def test_a_row_is_the_wire_model_field_by_field(fleet, state, beats, machine):
    made = Machine(id="vm", name="web-1", address="10.1.1.1", proxy_port=1, management_port=0) if machine else None
    fleet.add(state=state, machine=made, peer_address="10.9.9.9", agent_version='"1"', protected=True)
    if beats:
        fleet.beat(status="Draining")
    (row,) = rows(fleet, include_all=True)
    view = NodeView.model_validate(row)
    assert row.keys() == NodeView.model_fields.keys()
    assert list(row)[:7] == ORIGINAL
    assert view.plain() == row
    assert fleet.registry.view(uid(1)) == view
    assert (row["address"], row["management_port"]) == (("10.1.1.1", 0) if machine else ("10.9.9.9", 9999))
    assert row["cpu"] == (0.42 if beats else None)
    assert row["reported_status"] == ("Draining" if beats else None)


def test_an_unknown_node_has_no_view(fleet):
    assert fleet.registry.view(uid(1)) is None


@pytest.mark.parametrize(
    ("state", "status"),
    [("joining", "Registered"), ("warm", "Registered"), ("active", "Active"), ("draining", "Draining"),
     ("terminating", "Terminating"), ("unreachable", "Dead"), ("failed", "Dead")],
)  # fmt: skip
def test_states_are_spelled_as_the_original_does(fleet, state, status):
    fleet.add(state=state)
    assert [row["status"] for row in rows(fleet)] == [status]


@pytest.mark.parametrize("state", ["requested", "provisioning", "booting", "quarantined"])
def test_what_the_original_cannot_spell_is_listed_only_on_demand(fleet, state):
    fleet.add(state=state)
    assert rows(fleet) == []
    assert [row["state"] for row in rows(fleet, include_all=True)] == [state]


def test_a_hidden_node_stays_hidden_after_it_was_listed_on_demand(fleet):
    fleet.add(1, state="booting")
    fleet.add(2)
    assert len(rows(fleet, include_all=True)) == 2
    assert [row["node_id"] for row in rows(fleet)] == [uid(2)]


def test_numbers_have_six_decimals_and_rates_three(fleet):
    fleet.add()
    fleet.beat(metrics={"cpu": 0.12345678, "memory": 1 / 3, "rps": 1234.56789})
    (row,) = rows(fleet)
    assert (row["cpu"], row["rps"]) == (0.123457, 1234.568)
    assert (row["metrics"]["cpu_usage"], row["metrics"]["memory_usage"]) == (12.345678, 33.333333)


def test_a_line_feed_in_a_name_does_not_shift_the_rows(fleet):
    for number in (1, 2, 3):
        fleet.add(number, agent_version="a\nb", config={"node_type": "x\r\ny", "region": "\u2028", "tags": ["\n"]})
        fleet.beat(number, metrics={"connections": number})
    for _ in range(2):
        listed = rows(fleet)
        assert [(row["node_id"], row["metrics"]["active_connections"]) for row in listed] == [
            (uid(number), number) for number in (1, 2, 3)
        ]
        assert {row["agent_version"] for row in listed} == {"a\nb"}
        fleet.beat(2, metrics={"connections": 2})


def test_a_listing_of_one_pool(fleet):
    fleet.add(1, pool="web")
    fleet.add(2, pool="api")
    assert [row["node_id"] for row in rows(fleet, pool="api")] == [uid(2)]
    assert rows(fleet, pool="none") == []


async def test_a_change_shows_at_once(fleet):
    fleet.add()
    fleet.beat()
    assert rows(fleet)[0]["cpu"] == 0.42
    fleet.beat(metrics={"cpu": 0.5})
    assert rows(fleet)[0]["cpu"] == 0.5
    fleet.add(state="draining")
    assert rows(fleet)[0]["status"] == "Draining"
    await fleet.clock.advance(1)
    fleet.registry.touch(uid(1))
    assert rows(fleet)[0]["last_heartbeat"] == wire_time(fleet.clock.now())


async def test_silence_shows_although_nothing_came(fleet):
    fleet.add()
    fleet.beat()
    assert [row["silent"] for row in rows(fleet)] == [False]
    await fleet.clock.advance(16)
    assert [row["silent"] for row in rows(fleet)] == [True]
    fleet.beat()
    assert [row["silent"] for row in rows(fleet)] == [False]


async def test_ten_thousand_nodes_are_listed_each_once_in_chunks_that_do_not_stall(fleet):
    total = 10_000
    for number in range(1, total + 1):
        fleet.add(number, state="booting" if number % 100 == 0 else "active", pool=f"p{number % 7}")
        fleet.beat(number, metrics={"connections": number})
    chunks = list(fleet.registry.listing())
    listed = json.loads(b"".join(chunks))
    assert len(listed) == total - 100
    assert {row["node_id"]: row["metrics"]["active_connections"] for row in listed} == {
        uid(number): number for number in range(1, total + 1) if number % 100
    }
    assert max(chunk.count(b'"node_id"') for chunk in chunks) <= listing.CHUNK <= 500
    # A fifth changed: the rest is the very same bytes, and nothing is mixed up.
    for number in range(1, total + 1, 5):
        fleet.beat(number, metrics={"connections": 7})
    again = {row["node_id"]: row["metrics"]["active_connections"] for row in rows(fleet, include_all=True)}
    assert again == {uid(number): 7 if number % 5 == 1 else number for number in range(1, total + 1)}


def test_nodes_may_come_and_go_while_the_chunks_are_taken(fleet):
    for number in range(1, 1201):
        fleet.add(number)
    chunks = fleet.registry.listing()
    taken = [next(chunks), next(chunks)]
    fleet.registry.drop(uid(1200))
    fleet.add(5000)
    listed = json.loads(b"".join([*taken, *chunks]))
    assert len(listed) == 1200


def test_a_fleet_too_large_to_keep_its_json_is_listed_all_the_same(fleet, monkeypatch):
    monkeypatch.setattr(listing, "KEPT", 3)
    nodes = [fleet.add(number) for number in range(1, 6)]
    assert len(rows(fleet)) == 5
    assert all(node.cached is None for node in nodes)


def test_times_have_the_wire_form(fleet):
    times = listing.Times(fleet.clock)
    for seconds in (0, 0.001, 59.999, 86400.5, 123456.789):
        assert times.text(seconds)[:-4] == wire_time(fleet.clock.now() + timedelta(seconds=seconds))[:-4]


def test_a_node_cannot_forge_a_part_of_its_row_by_its_names(fleet):
    hostile = ['"last_heartbeat":', '"reported_status":', '"registered_at":', "reported_status", 'x":1,"cpu']
    config = {"node_type": '"registered_at":"x"', "region": "reported_status", "tags": hostile}
    fleet.add(config=config, agent_version='"reported_status":')
    fleet.beat()
    first = rows(fleet)
    fleet.beat(metrics={"cpu": 0.9})
    second = rows(fleet)
    assert second[0]["cpu"] == 0.9
    assert second[0]["config"] == first[0]["config"] == config
    assert fleet.registry.view(uid(1)).agent_version == '"reported_status":'


def test_an_empty_fleet_is_an_empty_array(fleet):
    assert b"".join(fleet.registry.listing()) == b"[]"


# ---------------------------------------------------------------------- fleet/stats


async def test_stats_have_the_originals_keys_and_percent(fleet, legacy):
    fleet.add(1)
    fleet.add(2)
    fleet.add(3, legacy=True)
    fleet.add(4, state="failed")
    fleet.add(5, state="requested")
    fleet.add(6, state="joining")
    fleet.beat(1, metrics={"cpu": 0.2, "memory": 0.1})
    fleet.beat(2, metrics={"cpu": 0.6, "memory": 0.3})
    fleet.registry.on_legacy(legacy(3, cpu_usage=70, memory_usage=20), unit="percent")
    assert fleet.registry.stats() == {
        "total_nodes": 5,
        "active_nodes": 3,
        "dead_nodes": 1,
        "avg_cpu_usage": 50.0,
        "avg_memory_usage": 20.0,
        "total_pps": 10,
        "total_connections": 25,
    }


async def test_stale_and_dead_numbers_are_no_load(fleet):
    fleet.add(1)
    fleet.add(2)
    fleet.beat(1, metrics={"cpu": 1.0})
    await fleet.clock.advance(20)
    fleet.beat(2, metrics={"cpu": 0.5})
    fleet.add(3)
    fleet.beat(3, metrics={"cpu": 1.0})
    fleet.add(3, state="failed")
    stats = fleet.registry.stats()
    assert (stats["avg_cpu_usage"], stats["total_connections"], stats["dead_nodes"]) == (50.0, 12, 1)


def test_an_empty_fleet_has_no_load(fleet):
    assert set(fleet.registry.stats().values()) == {0}


def test_the_whole_listing_is_cheap_when_nothing_changed(fleet):
    for number in range(1, 2001):
        fleet.add(number)
        fleet.beat(number)

    def cost() -> float:
        start = time.process_time()
        list(fleet.registry.listing())
        return time.process_time() - start

    first = cost()
    assert min(cost() for _ in range(5)) < first / 2
