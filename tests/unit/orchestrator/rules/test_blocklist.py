"""The blocklist as a value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

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
        ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
    ],
)
def test_an_address_has_one_form(text, form):
    assert canonical(text) == form


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "203.0.113.256",
        "203.0.113.7:80",
        "0.0.0.0/0",
        "10.0.0.0/7",
        "::/0",
        "1.2.3.4/33",
        "1.2.3.4/a",
        "fe80::1%eth0",
        "010.0.0.1",
        "::ffff:0:0/96",
        " 1.2.3.4",
    ],
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
    assert (blocklist.count(before), blocklist.count(end)) == (1, 0)
    assert list(blocklist.live(end)) == list(blocklist.page(None, end)) == []
    assert blocklist.expired(end) == ["203.0.113.7"]
    assert blocklist.difference(0, end).blocked == []


def test_a_reader_that_is_up_to_date_gets_an_empty_difference():
    snapshot = blocked("203.0.113.7").difference(1, NOW)
    assert (snapshot.complete, snapshot.blocked, snapshot.removed) == (False, [], [])


def test_a_reader_that_is_behind_gets_only_what_changed():
    blocklist = blocked("203.0.113.7", "203.0.113.8")
    blocklist.apply(3, [("203.0.113.7", None)])
    snapshot = blocklist.difference(1, NOW)
    assert [rule.ip for rule in snapshot.blocked] == ["203.0.113.8"]
    assert snapshot.removed == ["203.0.113.7"]


def test_what_came_and_went_between_two_readings_is_only_removed():
    blocklist = blocked("203.0.113.7")
    blocklist.apply(2, [("203.0.113.7", None)])
    snapshot = blocklist.difference(0, NOW)
    assert (snapshot.blocked, snapshot.removed) == ([], ["203.0.113.7"])


@pytest.mark.parametrize("since", [None, 0, 3, 99], ids=["nothing", "before a restart", "too old", "from the future"])
def test_nothing_leads_from_an_unknown_version_to_the_present_one(since):
    restarted = Blocklist(blocked("203.0.113.7", "203.0.113.8"), version=5)
    assert not restarted.covers(since)
    assert since is None or restarted.difference(since, NOW) is None
    assert len(list(restarted.live(NOW))) == 2


def test_a_difference_reaches_as_far_back_as_the_kept_changes():
    blocklist = Blocklist()
    for version in range(1, 3000):
        blocklist.apply(version, [("203.0.113.7", entry(blocklist, "203.0.113.7"))])
    assert blocklist.difference(500, NOW) is None
    assert blocklist.difference(2998, NOW).version == 2999


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=40), st.data())
def test_a_difference_leads_from_every_version_since_its_first_to_the_present_one(changes, data):
    blocklist, histories = Blocklist(), [set()]
    for number, (host, add) in enumerate(changes, 1):
        ip = f"203.0.113.{host}"
        blocklist.apply(number, [(ip, entry(blocklist, ip) if add else None)])
        histories.append({record.ip for record in blocklist})
    since = data.draw(st.integers(0, len(changes)))
    difference = blocklist.difference(since, NOW)
    for reader in histories[since:]:
        assert (reader | {rule.ip for rule in difference.blocked}) - set(difference.removed) == histories[-1]


def test_a_difference_that_is_too_long_is_none():
    blocklist = blocked(*(f"203.0.113.{host}" for host in range(1, 12)))
    assert blocklist.difference(0, NOW, most=10) is None
    assert len(blocklist.difference(1, NOW, most=10).blocked) == 10


def test_pages_show_every_entry_once_though_others_come_and_go_meanwhile():
    blocklist = blocked(*(f"10.0.{host // 250}.{host % 250}" for host in range(1000)))
    kept = {record.ip for record in blocklist}
    seen, after, version = [], None, 2000
    while page := list(islice(blocklist.page(after, NOW), 37)):
        seen += [record.ip for record in page]
        after = page[-1].ip
        version += 1
        blocklist.apply(
            version, [(seen[0], None), (f"172.16.{version % 250}.1", entry(blocklist, f"172.16.{version % 250}.1"))]
        )
        kept.discard(seen[0])
    assert len(seen) == len(set(seen))
    assert kept <= set(seen)


def test_the_narrowest_wider_entry_in_force_covers():
    blocklist = blocked("203.0.0.0/16", "203.0.113.0/24", "2001:db8::/32")
    assert blocklist.covering("203.0.113.7", NOW) == "203.0.113.0/24"
    assert blocklist.covering("203.0.113.0/24", NOW) == "203.0.0.0/16"
    assert blocklist.covering("2001:db8::1", NOW) == "2001:db8::/32"
    assert blocklist.covering("198.51.100.1", NOW) is None
    assert blocklist.covering("203.0.113.7", NOW + timedelta(seconds=600)) is None


def test_an_entry_that_was_prolonged_has_not_expired_at_its_first_end():
    blocklist = blocked("203.0.113.7", ttl=60)
    assert blocklist.expired(NOW + timedelta(seconds=59)) == []
    blocklist.apply(2, [("203.0.113.7", entry(blocklist, "203.0.113.7", ttl=600))])
    assert blocklist.expired(NOW + timedelta(seconds=61)) == []
    assert blocklist.expired(NOW + timedelta(seconds=600)) == ["203.0.113.7"]
