"""The audit: every changing route writes one event, refusals too, and a lost store loses nothing."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.http import Audit, routes
from secbeat import ids
from secbeat.service import Stop
from secbeat.store import Unavailable
from secbeat.testing import FakeClock, MemoryLedger
from secbeat.wire.events import AuditEvent


def event(clock, what="POST /api/v1/pools/default/pause", status=200):
    return AuditEvent(at=clock.now(), who="alice", scope="operate", what=what, status=status)


@pytest.fixture
def table(parts):
    return routes(
        control=parts.control,
        registry=parts.registry,
        rules=parts.rules,
        events=parts.events,
        audit=parts.audit,
        clock=parts.clock,
    )


def test_every_route_that_is_no_get_is_audited_but_the_heartbeat(table):
    unaudited = {route.path for route in table if route.method != "GET" and not route.changes}
    assert unaudited == {"/api/v1/nodes/heartbeat"}
    assert not [route.path for route in table if route.method == "GET" and route.changes]


async def test_each_changing_route_leaves_exactly_one_event_whether_done_or_refused(api, table):
    for route in table:
        if not route.changes:
            continue
        path = (
            route.path.replace("{name}", "default")
            .replace("{node_id}", ids.new_node_id())
            .replace("{op_id}", ids.new_op_id())
            .replace("{ip:.+}", "203.0.113.7")
        )
        before = len(await api.audit.newest(1000))
        answer = await api.call(route.method, path, {}, token="admin")
        events = await api.audit.newest(1000)
        assert len(events) == before + 1, path
        assert (events[-1].what, events[-1].status) == (f"{route.method} {path}", answer.status)


async def test_an_event_says_who_what_before_and_after(api):
    await api.post("/api/v1/pools/default/scale", {"size": 4}, token="operate")
    (found,) = await api.audit.newest(10)
    assert (found.who, found.scope, found.peer, found.status) == ("the-operate", "operate", "127.0.0.1", 200)
    assert (found.before["revision"], found.after["revision"]) == (12, 13)


async def test_a_refused_attempt_is_audited_as_anonymous(api):
    await api.post("/api/v1/pools/default/scale", {"size": 4})
    (found,) = await api.audit.newest(10)
    assert (found.who, found.status) == ("anonymous", 401)


async def test_reads_and_heartbeats_are_not_audited(api):
    await api.get("/api/v1/pools", token="read")
    await api.post("/api/v1/nodes/heartbeat", {"node_id": api.add_node()})
    assert await api.audit.newest(10) == []


async def test_no_secret_reaches_the_audit(api):
    await api.post("/api/v1/pools/default/nodes", token="admin")
    (found,) = await api.audit.newest(10)
    assert found.after["op_id"]
    assert b"secret" not in found.encode()
    assert b"admin-token" not in found.encode()


async def test_the_route_shows_the_newest_oldest_first(api):
    for verb in ("pause", "resume", "retire"):
        await api.post(f"/api/v1/pools/default/{verb}", token="admin")
    body = (await api.get("/api/v1/audit?newest=2", token="read")).json()
    assert [one["what"].rsplit("/", 1)[1] for one in body["items"]] == ["resume", "retire"]


async def test_events_go_to_the_ledger_under_their_pool(api):
    await api.post("/api/v1/pools/default/pause", token="operate")
    await api.post("/api/v1/rules/block_ip", {"ip": "203.0.113.7", "reason": "x"})
    await api.audit.flush()
    assert [(kind, pool) for kind, pool, _ in api.ledger.records] == [("audit", "default"), ("audit", "_")]


async def test_a_pool_name_that_is_none_never_becomes_a_subject(api):
    await api.post("/api/v1/pools/a.b%3E/pause", token="operate")
    await api.audit.flush()
    assert [pool for _, pool, _ in api.ledger.records] == ["_"]


async def test_without_the_store_the_audit_is_read_from_memory_and_written_later():
    clock, ledger = FakeClock(), MemoryLedger()
    audit = Audit(clock=clock, ledger=ledger)
    audit.add(event(clock))
    ledger.next_error = Unavailable("gone")
    assert [one.who for one in await audit.newest(10)] == ["alice"]
    assert ledger.records == []
    await audit.flush()
    assert len(ledger.records) == 1


async def test_what_fails_among_many_is_written_later_and_the_others_once():
    class Failing(MemoryLedger):
        failing = ("7", "40")

        async def append(self, kind: str, pool: str, record: bytes) -> None:
            if AuditEvent.decode(record).what in self.failing:
                raise Unavailable("gone")
            await super().append(kind, pool, record)

    clock, ledger = FakeClock(), Failing()
    audit = Audit(clock=clock, ledger=ledger)
    names = [str(number) for number in range(50)]
    for name in names:
        audit.add(event(clock, name))
    with pytest.raises(Unavailable):
        await audit.flush()
    ledger.failing = ()
    await audit.flush()
    written = [AuditEvent.decode(record).what for _, _, record in ledger.records]
    assert sorted(written) == sorted(names)
    assert written[-2:] == ["7", "40"]


async def test_many_events_are_on_their_way_to_the_ledger_at_once():
    class Slow(MemoryLedger):
        under_way = most = 0

        async def append(self, kind: str, pool: str, record: bytes) -> None:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await asyncio.sleep(0)
            self.under_way -= 1
            await super().append(kind, pool, record)

    clock, ledger = FakeClock(), Slow()
    audit = Audit(clock=clock, ledger=ledger)
    for number in range(200):
        audit.add(event(clock, str(number)))
    await audit.flush()
    assert ledger.most == 64
    assert [AuditEvent.decode(record).what for _, _, record in ledger.records] == [str(n) for n in range(200)]


async def test_the_keeper_tries_again_after_an_outage_and_writes_in_order():
    clock, ledger, stop = FakeClock(), MemoryLedger(), Stop()
    audit = Audit(clock=clock, ledger=ledger)
    ledger.next_error = Unavailable("gone")
    audit.add(event(clock, "first"))
    audit.add(event(clock, "second"))
    task = asyncio.create_task(audit.run(stop))
    await clock.advance(1)
    assert ledger.records == []
    await clock.advance(10)
    assert [AuditEvent.decode(record).what for _, _, record in ledger.records] == ["first", "second"]
    stop.request("test")
    await task


async def test_what_still_waits_at_the_end_is_written():
    clock, ledger, stop = FakeClock(), MemoryLedger(), Stop()
    audit = Audit(clock=clock, ledger=ledger)
    stop.request("test")
    audit.add(event(clock))
    await audit.run(stop)
    assert len(ledger.records) == 1


async def test_beyond_its_limit_the_oldest_waiting_event_is_lost_and_counted():
    clock, ledger = FakeClock(), MemoryLedger()
    audit = Audit(clock=clock, ledger=ledger, waiting=2)
    for number in range(3):
        audit.add(event(clock, f"{number}"))
    await audit.flush()
    assert audit.lost == 1
    assert [AuditEvent.decode(record).what for _, _, record in ledger.records] == ["1", "2"]
