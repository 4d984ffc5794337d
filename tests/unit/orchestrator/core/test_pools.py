"""Pools: the loop, what operators change, breaker, caps, files that change."""

from __future__ import annotations

import json
import logging

import pytest

from orchestrator.control import Control, Missing
from orchestrator.testing import world
from secbeat.errors import RefusedError, SecbeatError, UnreachableError
from secbeat.settings import PoolSettings
from secbeat.testing import settle
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.pools import PauseRequest, ResumeRequest, ScaleRequest


def kinds(w):
    return [json.loads(event.payload)["kind"] for event in w.core.context.events.newest(500)]


async def test_the_core_is_a_control():
    async with world() as w:
        control: Control = w.core
        assert (control.leader, control.epoch) == (True, 1)


async def test_a_fleet_below_min_is_restored_at_once_between_two_checks():
    async with world(pool={"min": 2, "scaling_check_interval_seconds": 3600}) as w:
        await w.until(lambda: len(w.active()) == 2, within=10)
        await w.clock.advance(60)
        await w.core.drain(w.active()[0], reason="MANUAL", by="x")
        await settle()
        assert len(w.operations("create")) == 3


async def test_a_look_between_two_checks_counts_for_no_threshold():
    async with world(pool={"min": 1, "scaling_check_interval_seconds": 60, "warmup_seconds": 0}) as w:
        await w.until(lambda: len(w.active()) == 1, within=10)
        w.load(0.95)
        await w.clock.advance(61)
        for _ in range(20):
            w.core.loop.wake("default")
            await w.clock.advance(1)
        assert len(w.operations("create")) == 1
        await w.until(lambda: len(w.operations("create")) == 2, within=61)


async def test_booting_capacity_counts_so_a_slow_boot_buys_no_second_machine():
    async with world(pool={"min": 1, "warmup_seconds": 0}) as w:
        await w.until(lambda: len(w.active()) == 1, within=10)
        w.auto_join = False
        w.load(0.99)
        await w.clock.advance(600)
        assert len(w.operations("create")) == 2


async def test_scale_pause_resume_and_retire_change_the_pool_and_say_so():
    async with world(pool={"min": 1}) as w:
        await w.until(lambda: len(w.active()) == 1, within=10)
        view = await w.core.scale("default", ScaleRequest(size=3, for_seconds=7200), by="anna")
        assert (view.override.size, view.override.by, view.desired) == (3, "anna", 3)
        await w.until(lambda: len(w.active()) == 3, within=30)
        assert w.operations("create")[-1].requested_by == "anna"
        await w.core.pause("default", PauseRequest(direction="both", reason="deploy"), by="bert")
        await w.core.scale("default", ScaleRequest(size=5), by="anna")
        await w.clock.advance(120)
        assert len(w.active()) == 3
        assert "deploy" in w.core.why_pool("default").sentence
        view = await w.core.resume("default", ResumeRequest(), by="bert")
        assert (view.pause, view.override, view.retired) == (None, None, False)
        await w.core.retire("default", by="anna")
        await w.until(lambda: w.states() == [] and w.receiver.machines == {}, within=300)
        await w.clock.advance(300)
        assert w.core.pool("default").desired == 0
        assert {"pool.scaled", "pool.paused", "pool.resumed", "pool.retired"} <= set(kinds(w))
        await w.core.resume("default", ResumeRequest(), by="anna")
        await w.until(lambda: len(w.active()) == 1, within=30)


async def test_an_override_and_a_pause_run_out():
    async with world(pool={"min": 1}) as w:
        await w.core.scale("default", ScaleRequest(size=2, for_seconds=60), by="x")
        await w.core.pause("default", PauseRequest(direction="in", for_seconds=60), by="x")
        await w.until(lambda: len(w.active()) == 2, within=30)
        await w.clock.advance(75)
        record = w.core.context.records.pool("default")
        assert (record.override, record.pause) == (None, None)
        assert kinds(w).count("pool.expired") == 2


async def test_operators_wishes_outlive_a_restart():
    async with world(pool={"min": 1}) as w:
        await w.core.scale("default", ScaleRequest(size=3), by="x")
        await w.core.pause("default", PauseRequest(direction="in"), by="x")
        revision = w.core.pool("default").revision
        await w.restart()
        view = w.core.pool("default")
        assert (view.override.size, view.pause.direction, view.revision) == (3, "in", revision)


async def test_a_stale_revision_is_refused_and_changes_nothing():
    async with world(pool={"min": 1}) as w:
        stale = w.core.pool("default").revision
        await w.core.scale("default", ScaleRequest(size=2, if_revision=stale), by="x")
        with pytest.raises(RefusedError) as refused:
            await w.core.scale("default", ScaleRequest(size=4, if_revision=stale), by="y")
        assert refused.value.code == "CHANGED_MEANWHILE"
        assert w.core.pool("default").override.size == 2
        with pytest.raises(RefusedError):
            await w.core.resume("default", ResumeRequest(if_revision=stale), by="y")
        assert w.core.pool("default").override.size == 2


@pytest.mark.parametrize("size", [0, 11])
async def test_a_size_outside_min_and_max_is_refused(size):
    async with world(pool={"min": 1, "max": 10}) as w:
        with pytest.raises(RefusedError) as refused:
            await w.core.scale("default", ScaleRequest(size=size), by="x")
        assert refused.value.code == "SIZE_OUT_OF_RANGE"


async def test_what_does_not_exist_is_missing():
    from secbeat import ids

    async with world() as w:
        for call in (
            lambda: w.core.pool("nope"),
            lambda: w.core.why_pool("nope"),
            lambda: w.core.operation(ids.new_op_id()),
            lambda: w.core.why_node(ids.new_node_id()),
            lambda: w.core.decisions("nope"),
        ):
            with pytest.raises(Missing):
                call()
        with pytest.raises(Missing):
            await w.core.scale("nope", ScaleRequest(size=1), by="x")
        with pytest.raises(Missing):
            await w.core.job(ids.new_op_id())


async def test_who_does_not_lead_changes_nothing():
    async with world() as w:
        w.lease.lose()
        with pytest.raises(UnreachableError) as refused:
            await w.core.scale("default", ScaleRequest(size=2), by="x")
        assert refused.value.code == "NOT_LEADER"


async def test_a_failed_boot_is_made_good_after_a_growing_wait_not_at_the_next_check():
    w = world(pool={"min": 1, "scaling_check_interval_seconds": 60}, boot_retry_seconds=5)
    w.receiver.manner = "refused"
    async with w:
        await w.clock.advance(4)
        assert len(w.operations("create")) == 1
        await w.clock.advance(2)
        assert len(w.operations("create")) == 2
        await w.clock.advance(8)
        assert len(w.operations("create")) == 2
        await w.clock.advance(3)
        assert len(w.operations("create")) == 3


async def test_three_boots_that_never_join_open_the_breaker_with_the_reason_in_why():
    w = world(pool={"min": 1}, breaker_reset_seconds=600)
    w.receiver.manner = "refused"
    async with w:
        await w.clock.advance(120)
        assert len(w.operations("create")) == 3
        breaker = w.core.pool("default").breaker
        assert (breaker.failures, breaker.open_since is not None, breaker.last_error) == (3, True, "422: no")
        assert "422: no" in w.core.why_pool("default").sentence
        assert kinds(w).count("breaker.opened") == 1
        await w.restart()
        await w.clock.advance(300)
        assert len(w.operations("create")) == 3, "an open breaker outlives a restart"


async def test_an_open_breaker_lets_one_probe_through_and_closes_when_it_joins():
    w = world(pool={"min": 3}, breaker_reset_seconds=600)
    w.receiver.manner = "refused"
    async with w:
        await w.clock.advance(60)
        failed = len(w.operations("create"))
        await w.clock.advance(560)
        assert len(w.operations("create")) == failed + 1, "the probe"
        assert w.core.pool("default").breaker.open_since is not None
        w.receiver.manner = "tracked"
        await w.until(lambda: len(w.active()) == 3, within=640)
        assert w.core.pool("default").breaker.failures == 0


async def test_resume_gives_an_open_breaker_a_fresh_start():
    w = world(pool={"min": 1})
    w.receiver.manner = "refused"
    async with w:
        await w.clock.advance(60)
        w.receiver.manner = "tracked"
        await w.core.resume("default", ResumeRequest(), by="x")
        await w.until(lambda: len(w.active()) == 1, within=5)


async def test_open_operations_are_capped_and_the_rest_follows():
    w = world(pool={"min": 6}, max_open_operations_per_pool=2)
    w.receiver.automatic = False
    async with w:
        await w.clock.advance(30)
        assert len(w.core.operations(open_only=True)) == 2
        w.receiver.automatic = True
        for op in w.core.operations(open_only=True):
            await w.receiver.finish(op.op_id)
        await w.until(lambda: len(w.active()) == 6, within=120)
        assert len(w.operations("create")) == 6


@pytest.mark.parametrize("way", ["size", "max", "retired"])
async def test_more_nodes_than_one_decision_removes_leave_without_a_wait_for_the_next_check(way):
    pool = {"min": 20, "max": 20, "scaling_check_interval_seconds": 3600, "warmup_seconds": 0}
    w = world(pool=pool, max_open_operations_per_pool=50, max_open_operations=50)
    async with w:
        await w.until(lambda: len(w.active()) == 20, within=60)
        if way == "retired":
            await w.core.retire("default", by="x")
        else:
            smaller = {"min": 1, "max": 20 if way == "size" else 1}
            w.core.reload(
                w.settings.model_copy(update={"pools": {"default": PoolSettings.model_validate({**pool, **smaller})}})
            )
        if way == "size":
            await w.core.scale("default", ScaleRequest(size=1), by="x")
        await settle()
        left = 0 if way == "retired" else 1
        assert len(w.operations("destroy")) == 20 - left


async def test_the_cap_over_all_pools_holds():
    w = world(pool={"min": 6}, max_open_operations=3)
    w.receiver.automatic = False
    async with w:
        await w.clock.advance(30)
        assert len(w.core.operations(open_only=True)) == 3


async def test_a_pool_that_vanishes_from_the_file_stays_as_it_is():
    async with world(pool={"min": 2}) as w:
        await w.until(lambda: len(w.active()) == 2, within=10)
        other = w.settings.model_copy(update={"pools": {"edge": PoolSettings(min=0)}})
        w.core.reload(other)
        w.load(0.99)
        await w.clock.advance(600)
        assert (len(w.active()), len(w.operations())) == (2, 2)
        assert w.core.why_pool("default").decision.code == "POOL_VANISHED"
        assert "pool.vanished" in kinds(w)
        with pytest.raises(RefusedError):
            await w.core.scale("default", ScaleRequest(size=1), by="x")
        w.core.reload(w.settings)
        w.load(0.5)
        await w.clock.advance(20)
        assert not w.core.context.records.pool("default").vanished


async def test_live_keys_change_without_a_restart():
    async with world(pool={"min": 1}) as w:
        await w.until(lambda: len(w.active()) == 1, within=10)
        grown = w.settings.pools["default"].model_copy(update={"min": 3})
        w.core.reload(w.settings.model_copy(update={"pools": {"default": grown}}))
        await w.until(lambda: len(w.active()) == 3, within=5)


async def test_log_lines_of_decisions_have_the_guides_words_and_come_once_per_change(caplog):
    caplog.set_level(logging.INFO)
    async with world(pool={"min": 1, "warmup_seconds": 0}) as w:
        await w.until(lambda: len(w.active()) == 1, within=10)
        await w.clock.advance(200)
        lines = [
            record.getMessage()
            for record in caplog.records
            if "ResourceManager scaling decision" in record.getMessage()
        ]
        assert any("BELOW_MIN_FLEET_SIZE" in line for line in lines)
        assert len(lines) <= 4
        assert any("is succeeded" in record.getMessage() for record in caplog.records)


async def test_decisions_reach_the_ledger_and_the_one_in_force_at_a_time_is_found():
    async with world(pool={"min": 1, "warmup_seconds": 0}) as w:
        start = w.clock.now()
        await w.clock.advance(100)
        written = [DecisionRecord.decode(record) for kind, _, record in w.ledger.records if kind == "decision"]
        assert [one.code for one in written][:1] == ["BELOW_MIN_FLEET_SIZE"]
        assert written[0].op_ids == (w.operations("create")[0].op_id,)
        found = await w.core.decision_at("default", start)
        assert found.code == "BELOW_MIN_FLEET_SIZE"
        assert (await w.core.decision_at("default", w.clock.now())).code == written[-1].code
        assert any(kind == "operation" for kind, _, _ in w.ledger.records)


async def test_a_protected_node_is_never_the_victim():
    async with world(pool={"min": 1, "warmup_seconds": 0, "scale_down_cooldown_seconds": 0}) as w:
        await w.until(lambda: len(w.active()) == 1, within=10)
        keep = w.active()[0]
        await w.core.protect(keep, on=True, by="x")
        await w.core.scale("default", ScaleRequest(size=2), by="x")
        await w.until(lambda: len(w.active()) == 2, within=30)
        w.nodes.all[keep].connections = 0
        for node in w.nodes.all.values():
            node.connections = 0 if node.node_id == keep else 50
        await w.core.resume("default", ResumeRequest(), by="x")
        w.load(0.01)
        await w.until(lambda: len(w.active()) == 1, within=300)
        assert w.active() == [keep]


async def test_cancelling_a_job_asks_its_provisioner():
    from secbeat import subjects

    w = world()
    w.receiver.automatic = False
    async with w:
        (op,) = w.operations()
        heard = []
        await w.messaging.linked().subscribe(subjects.job_hint(op.op_id), lambda _s, payload: heard.append(payload))
        record = await w.core.cancel_job(op.op_id, by="x")
        assert record.cancel_requested_at is not None
        assert json.loads(heard[-1])["cancel"] is True
        await w.receiver.finish(op.op_id, "cancelled")
        await settle()
        assert w.core.operation(op.op_id).state == "failed"
        with pytest.raises(RefusedError):
            await w.core.cancel_job(op.op_id, by="x")


async def test_every_code_that_is_used_stands_in_the_catalogue():
    import re
    from pathlib import Path

    from secbeat import catalogue

    root = Path(__file__).parents[4] / "orchestrator"
    ours = [path for part in ("operations", "joining", "reconcile") for path in (root / part).glob("*.py")]
    pattern = re.compile(r'(?:Error|Missing|error|GateClosed|_failed|reason=|code=)\(?\s*"([A-Z][A-Z_]{3,})"')
    used = {code for path in ours for code in pattern.findall(path.read_text())}
    assert len(used) > 25
    assert used - set(catalogue.ALL) == set()
    assert all(issubclass(type(entry), object) and entry.remedy for entry in catalogue.ALL.values())
    with pytest.raises(KeyError):
        SecbeatError("NO_SUCH_CODE", why="x")
