"""Where the original's nodes registered from."""

from __future__ import annotations

import pytest

from orchestrator.fleet import Registry
from orchestrator.joining.places import Places
from secbeat import ids
from secbeat.testing import FakeClock
from secbeat.wire.nodes import NodeRecord

HERE, ELSEWHERE = ("10.0.0.1", 9999), ("10.0.0.2", 9999)


class Site:
    def __init__(self):
        self.clock = FakeClock()
        self.registry = Registry(clock=self.clock, default_interval=5.0)
        self.places = Places(self.registry)

    def put(self, address="10.0.0.1", **fields):
        now = self.clock.now()
        given = {"pool": "default", "state": "joining", "legacy": True, **fields}
        record = NodeRecord(
            node_id=ids.new_node_id(), state_since=now, created_at=now, peer_address=address, **given
        )  # fmt: skip
        self.registry.put(record)
        return record

    def at(self, place=HERE, pool="default"):
        return [node.node_id for node in self.places.at(place, pool)]


@pytest.fixture
def site():
    return Site()


def test_what_is_in_the_registry_is_found_by_address_and_pool(site):
    record = site.put()
    site.put("10.0.0.2")
    site.put(pool="web")
    site.put(legacy=False)
    site.places.look(1)
    assert site.at() == [record.node_id]
    assert len(site.at(ELSEWHERE)) == 1
    assert len(site.at(pool="web")) == 1


def test_a_new_leadership_reads_the_registry_anew_and_the_same_one_does_not(site):
    site.places.look(1)
    record = site.put()
    site.places.look(1)
    assert site.at() == []
    site.places.look(2)
    assert site.at() == [record.node_id]


def test_a_node_that_is_gone_is_not_found(site):
    record = site.put()
    site.places.add(record)
    site.registry.drop(record.node_id)
    assert site.at() == []


def test_of_a_crowd_nobody_is_found(site):
    for _ in range(32):
        site.places.add(site.put())
    assert len(site.at()) == 32
    site.places.add(site.put())
    assert site.at() == []


def test_nodes_that_are_gone_are_no_crowd(site):
    for _ in range(200):
        record = site.put()
        site.places.add(record)
        site.registry.drop(record.node_id)
    record = site.put()
    site.places.add(record)
    assert site.at() == [record.node_id]


def test_a_crowd_that_has_left_is_none_any_more(site):
    crowd = [site.put() for _ in range(60)]
    for record in crowd:
        site.places.add(record)
    for record in crowd:
        site.registry.drop(record.node_id)
    for _ in range(70):
        last = site.put()
        site.places.add(last)
        site.registry.drop(last.node_id)
    stays = site.put()
    site.places.add(stays)
    assert site.at() == [stays.node_id]
