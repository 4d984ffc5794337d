"""The blocklist as a value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rules import Blocklist, canonical
from secbeat.errors import SecbeatError
from secbeat.wire.rules import BlockRequest

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def entry(blocklist, ip, ttl=600, now=NOW):
    return blocklist.merged(ip, BlockRequest(ip=ip, reason="x", ttl_seconds=ttl), by="alice", now=now)


def blocked(*ips, ttl=600):
    blocklist = Blocklist()
    for number, ip in enumerate(ips, 1):
        blocklist.apply(number, [(ip, entry(blocklist, ip, ttl))])
    return blocklist


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:DB8::0001", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.77/24", "203.0.113.0/24"),
        ("203.0.113.7/32", "203.0.113.7"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
    ],
)
def test_an_address_has_one_form(text, form):
    assert canonical(text) == form


@pytest.mark.parametrize(
    "text", ["", "x", "203.0.113.256", "203.0.113.7:80", "0.0.0.0/0", "10.0.0.0/7", "::/0", "1.2.3.4/33", "1.2.3.4/a"]
)
def test_what_is_no_address_or_far_too_wide_is_refused(text):
    with pytest.raises(SecbeatError) as refused:
        canonical(text)
    assert (refused.value.code, refused.value.status) == ("RULE_INVALID", 422)


def test_of_two_ends_the_later_one_stands():
    blocklist = blocked("203.0.113.7", ttl=600)
    assert entry(blocklist, "203.0.113.7", ttl=60).expires_at == NOW + timedelta(seconds=600)
    assert entry(blocklist, "203.0.113.7", ttl=6000).expires_at == NOW + timedelta(seconds=6000)


def test_an_entry_is_in_force_until_its_end_and_not_a_moment_longer():
    blocklist = blocked("203.0.113.7", ttl=600)
    before, end = NOW + timedelta(seconds=599), NOW + timedelta(seconds=600)
    assert [record.ip for record in blocklist.live(before)] == ["203.0.113.7"]
    assert blocklist.expired(before) == []
    assert blocklist.live(end) == []
    assert blocklist.expired(end) == ["203.0.113.7"]
    assert blocklist.snapshot(None, end).blocked == []


def test_a_reader_that_is_up_to_date_gets_an_empty_difference():
    snapshot = blocked("203.0.113.7").snapshot(1, NOW)
    assert (snapshot.complete, snapshot.blocked, snapshot.removed) == (False, [], [])


def test_a_reader_that_is_behind_gets_only_what_changed():
    blocklist = blocked("203.0.113.7", "203.0.113.8")
    blocklist.apply(3, [("203.0.113.7", None)])
    snapshot = blocklist.snapshot(1, NOW)
    assert [rule.ip for rule in snapshot.blocked] == ["203.0.113.8"]
    assert snapshot.removed == ["203.0.113.7"]


def test_what_came_and_went_between_two_readings_is_only_removed():
    blocklist = blocked("203.0.113.7")
    blocklist.apply(2, [("203.0.113.7", None)])
    snapshot = blocklist.snapshot(0, NOW)
    assert (snapshot.blocked, snapshot.removed) == ([], ["203.0.113.7"])


@pytest.mark.parametrize("since", [None, 0, 3, 99], ids=["nothing", "before a restart", "too old", "from the future"])
def test_a_reader_with_an_unknown_version_gets_the_whole_list(since):
    stored = blocked("203.0.113.7", "203.0.113.8")
    restarted = Blocklist(stored.records.values(), version=5)
    snapshot = restarted.snapshot(since, NOW)
    assert snapshot.complete
    assert len(snapshot.blocked) == 2


def test_a_reader_older_than_the_kept_changes_gets_the_whole_list():
    blocklist = Blocklist()
    for version in range(1, 3000):
        blocklist.apply(version, [("203.0.113.7", entry(blocklist, "203.0.113.7"))])
    assert blocklist.snapshot(500, NOW).complete
    assert not blocklist.snapshot(2998, NOW).complete


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=40), st.integers(0, 40))
def test_a_reader_that_applies_differences_has_the_same_list_as_one_that_reads_it_whole(changes, start):
    blocklist, reader, version = Blocklist(), set(), 0
    for number, (host, add) in enumerate(changes, 1):
        ip = f"203.0.113.{host}"
        blocklist.apply(number, [(ip, entry(blocklist, ip) if add else None)])
        if number >= start and number % 3 == 0:
            snapshot = blocklist.snapshot(version, NOW)
            reader = set() if snapshot.complete else reader
            reader = (reader | {rule.ip for rule in snapshot.blocked}) - set(snapshot.removed)
            version = snapshot.version
    snapshot = blocklist.snapshot(version, NOW)
    reader = (reader | {rule.ip for rule in snapshot.blocked}) - set(snapshot.removed)
    assert reader == set(blocklist.records)
