"""The event hub."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from orchestrator.events import EventHub
from secbeat.testing import FakeClock
from secbeat.wire.events import Event


def test_an_event_carries_what_it_is_about():
    hub = EventHub(FakeClock())
    hub.publish("node.joined", "web-1 joined", pool="web", node_id="n", op_id="o", address="127.0.1.10")
    event = Event.decode(hub.newest(1)[0].payload)
    assert (event.kind, event.pool, event.node_id, event.op_id) == ("node.joined", "web", "n", "o")
    assert event.facts == {"address": "127.0.1.10"}


def test_numbers_go_on_rising_after_a_restart():
    clock = FakeClock()
    first = EventHub(clock)
    for _ in range(100):
        first.publish("test.tick", "x")
    clock._elapsed += 1
    second = EventHub(clock)
    second.publish("test.tick", "x")
    assert second.last_seq > first.last_seq


def test_only_the_newest_are_kept_and_a_reader_of_older_ones_is_told():
    hub = EventHub(FakeClock(), kept=3)
    for number in range(5):
        hub.publish("test.tick", f"{number}")
    kept, missing = hub.since(hub.first_seq)
    assert [json.loads(event.payload)["sentence"] for event in kept] == ["2", "3", "4"]
    assert missing
    assert hub.since(hub.first_seq + 1) == (kept, False)
    assert hub.since(hub.last_seq) == ([], False)


def test_facts_that_are_no_json_are_sent_as_their_text():
    hub = EventHub(FakeClock())
    hub.publish("test.tick", "x", error=ValueError("no answer"))
    assert json.loads(hub.newest(1)[0].payload)["facts"] == {"error": "no answer"}


def test_a_long_sentence_is_cut_and_not_refused():
    hub = EventHub(FakeClock())
    hub.publish("test.tick", "x" * 5000)
    assert len(json.loads(hub.newest(1)[0].payload)["sentence"]) == 2000


@pytest.mark.parametrize("kind", ["", "Node.joined", "node.>", "node joined", "node.*"])
def test_a_kind_that_is_no_subject_is_a_defect_of_the_caller(kind):
    with pytest.raises(ValidationError):
        EventHub(FakeClock()).publish(kind, "x")


def test_events_are_forwarded_under_their_subject_and_a_failing_forwarder_stops_nobody():
    sent = []
    hub = EventHub(FakeClock(), forward=lambda subject, payload: sent.append((subject, payload)))
    hub.publish("node.joined", "x")
    assert sent == [("secbeat.ev.node.joined", hub.newest(1)[0].payload)]

    def broken(subject, payload):
        raise RuntimeError

    hub.forward = broken
    hub.publish("node.joined", "y")
    assert len(hub.newest(10)) == 2


async def test_a_feed_gets_what_was_published_since_and_ends_with_its_block():
    hub = EventHub(FakeClock())
    hub.publish("test.tick", "before")
    with hub.follow() as feed:
        hub.publish("test.tick", "a")
        hub.publish("test.tick", "b")
        assert [json.loads(event.payload)["sentence"] for event in await feed.take()] == ["a", "b"]
    assert hub.followers == 0


async def test_a_feed_that_is_full_is_cut_off_after_what_it_holds():
    hub = EventHub(FakeClock())
    with hub.follow(limit=2) as slow, hub.follow() as quick:
        for _ in range(3):
            hub.publish("test.tick", "x")
        assert (len(await slow.take()), await slow.take()) == (2, [])
        assert len(await quick.take()) == 3
        assert (hub.followers, hub.dropped_feeds) == (1, 1)


async def test_closing_ends_every_feed():
    hub = EventHub(FakeClock())
    with hub.follow() as feed:
        hub.close()
        assert await feed.take() == []
