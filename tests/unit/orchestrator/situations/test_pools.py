"""``secbeat why POOL`` in scripted situations: the right cause first, and a command that changes it."""

from __future__ import annotations

import shlex
from datetime import timedelta

from secbeat.wire.jobs import JobError

QUICK = {"warmup_seconds": 0, "scale_up_checks": 1, "scale_down_checks": 1, "scale_down_cooldown_seconds": 0}
QUOTA = JobError(
    code="PROVIDER_LIMIT",
    message="task 'Create the machine' failed on localhost: quota exceeded for cores",
    task="Create the machine",
)


async def settled(service, nodes=1):
    await service.world.until(lambda: len(service.world.active()) == nodes, within=60)


async def fails(service, error=QUOTA):
    """The oldest job that runs ends with ``error``, and the pool is looked at."""
    op = next(op for op in service.world.core.operations(open_only=True) if op.action == "create")
    await service.world.receiver.finish(op.op_id, "failed", error=error)
    await service.world.clock.advance(1)
    return op.op_id


async def can_be_pasted(service, fix):
    """The command is understood: whatever comes of it is no complaint about its words."""
    command = fix.split("   (")[0].split("; ")[0]
    words = shlex.split(command)
    assert words[0] == "secbeat", fix
    ran = await service.secbeat(*words[1:])
    assert ran.code != 2, ran.err
    return ran


def held_up(w):
    w.receiver.automatic = False


async def test_at_max(serve):
    service = await serve(pool={**QUICK, "max": 1})
    await settled(service)
    service.world.load(0.95)
    await service.world.clock.advance(30)
    why = await service.why()
    assert why.first.startswith("default: holding at 1: cpu 95 % of 1 node, but the pool has 1 node and max is 1")
    assert why.line("fix").startswith(f"Set max = 2 under [pools.default] of {service.world.core.file}, then: secbeat ")
    assert " && kill -HUP " in why.line("fix")
    assert why.line("more") == "secbeat explain AT_MAX"


async def test_at_min(serve):
    service = await serve(pool={**QUICK, "min": 2})
    await settled(service, 2)
    service.world.load(0.02)
    await service.world.clock.advance(30)
    why = await service.why()
    assert why.first.startswith("default: holding at 2: cpu 2 % of 2 nodes, but the pool has 2 nodes and min is 2")
    assert "Set min = 1 under [pools.default]" in why.line("fix")


async def test_between_the_thresholds(serve):
    service = await serve(pool=QUICK)
    await settled(service)
    await service.world.clock.advance(30)
    why = await service.why()
    assert why.first.startswith("default: holding at 1: cpu 50 % of 1 node is within 30 % to 80 %")
    assert (await can_be_pasted(service, why.line("fix"))).code == 0
    await settled(service, 2)


async def test_waiting_for_more_checks(serve):
    service = await serve(pool={**QUICK, "scale_up_checks": 5, "scaling_check_interval_seconds": 60})
    await settled(service)
    await service.world.clock.advance(60)
    service.world.load(0.95)
    await service.world.clock.advance(120)
    why = await service.why()
    assert "cpu 95 % of 1 node is above 80 %, check 2 of 5 before a scale-up" in why.first
    assert why.line("trigger").startswith(
        "high_cpu: cpu 95% > 80%: yes, check 2 of 5, asks for 2 = ceil(0.95 x 1 / 0.8)"
    )
    assert (await can_be_pasted(service, why.line("fix"))).code == 0
    await settled(service, 2)


async def test_a_cooldown(serve):
    service = await serve(pool={**QUICK, "scale_up_cooldown_seconds": 600})
    await settled(service)
    service.world.load(0.95)
    await service.world.clock.advance(60)
    why = await service.why()
    assert why.first.startswith("default: holding at 1: cpu 95 % of 1 node, but the last scaling was ")
    assert "the cooldown is 600 s" in why.first
    assert why.line("clamp").startswith("COOLDOWN_UP: ")
    assert (await can_be_pasted(service, why.line("fix"))).code == 0
    await settled(service, 2)


async def test_a_pause(serve):
    service = await serve(pool=QUICK)
    await settled(service)
    paused = await service.secbeat(
        "pause", "default", "--for", "10m", "--direction", "out", "--reason", "the database moves"
    )
    assert paused.code == 0
    service.world.load(0.95)
    await service.world.clock.advance(30)
    why = await service.why()
    assert "growth is paused by the-admin until " in why.first
    assert "the database moves" in why.first
    assert why.line("fix") == "secbeat resume default"
    assert (await can_be_pasted(service, why.line("fix"))).code == 0
    await settled(service, 2)


async def test_no_metrics(serve):
    service = await serve(pool=QUICK)
    await settled(service)
    next(iter(service.world.nodes.all.values())).beating = False
    await service.world.clock.advance(60)
    why = await service.why()
    assert "none of 1 node has sent fresh metrics; missing data changes nothing" in why.first
    assert why.line("fix") == "secbeat nodes --pool default; secbeat doctor"
    assert (await can_be_pasted(service, why.line("fix"))).code == 0


async def test_a_providers_quota(serve):
    service = await serve(held_up, pool=QUICK, boot_retry_seconds=300)
    op_id = await fails(service)
    await service.world.clock.advance(15)
    why = await service.why()
    assert why.first.startswith("default: holding at 0: ")
    assert f"PROVIDER_LIMIT: {QUOTA.message}" in why.first
    assert op_id in why.first
    assert why.line("fix").startswith(f"secbeat jobs log {op_id}")
    assert why.line("more") == "secbeat explain PROVIDER_LIMIT"
    await can_be_pasted(service, why.line("fix"))


async def test_a_job_that_runs(serve):
    service = await serve(held_up, pool=QUICK)
    await service.world.clock.advance(15)
    op = service.world.core.operations(open_only=True)[0]
    why = await service.why()
    assert why.first.startswith("default: holding at 1: 1 node on the way counts as capacity")
    assert why.line("fix") == f"secbeat jobs log {op.op_id} -f"


async def test_observe_mode(serve):
    service = await serve(pool={**QUICK, "mode": "observe", "min": 2})
    why = await service.why()
    assert why.first.startswith("default: observing (would be growing) at 0: the pool has 0 nodes and min is 2")
    assert 'Set mode = "active" under [pools.default]' in why.line("fix")
    assert why.line("more") == "secbeat explain OBSERVE_MODE"


async def test_a_size_that_an_operator_set(serve):
    service = await serve(pool=QUICK)
    await settled(service)
    assert (await service.secbeat("scale", "default", "2", "--for", "2h")).code == 0
    await settled(service, 2)
    service.world.load(0.02)
    await service.world.clock.advance(300)
    why = await service.why()
    assert "the pool has the 2 nodes that the-admin asked for, until " in why.first
    assert why.line("fix") == "secbeat resume default"
    assert (await can_be_pasted(service, why.line("fix"))).code == 0
    await settled(service, 1)


async def test_an_open_breaker(serve):
    service = await serve(held_up, pool=QUICK, breaker_reset_seconds=600)
    for _ in range(3):
        op_id = await fails(service)
        await service.world.clock.advance(30)
    why = await service.why()
    assert "3 boots in a row never joined (PROVIDER_LIMIT: task 'Create the machine' failed on localhost" in why.first
    assert "the next try is at " in why.first
    fix = why.line("fix")
    assert fix == f"secbeat jobs log {op_id}   (when it is mended, to try at once: secbeat resume default)"
    service.world.receiver.automatic = True
    assert (await service.secbeat("resume", "default")).code == 0
    await settled(service)


async def test_a_past_time_is_answered_from_the_ledger(serve):
    service = await serve(pool={**QUICK, "max": 1})
    await settled(service)
    service.world.load(0.95)
    await service.world.clock.advance(60)
    then = service.world.clock.now()
    service.world.load(0.5)
    await service.world.clock.advance(7200)  # more evaluations than memory holds
    assert "holding at 1: cpu 50 % " in (await service.why()).first
    for moment, words in ((then, "max is 1"), (then + timedelta(minutes=30), "is within 30 % to 80 %")):
        why = await service.why("default", "--at", moment.isoformat())
        assert words in why.first
        assert "fix:" not in why.out
    absent = await service.secbeat("why", "default", "--at", (then - timedelta(days=1)).isoformat())
    assert absent.code == 2
    assert "the ledger has no decision of pool default" in absent.err


async def test_a_pause_in_one_direction_ends_by_itself_within_one_loop_and_both_ends_are_audited(serve):
    service = await serve(pool={**QUICK, "scaling_check_interval_seconds": 60})
    await settled(service)
    await service.secbeat("scale", "default", "2")
    await settled(service, 2)
    await service.secbeat("resume", "default")
    pause = ["pause", "default", "--direction", "in", "--for", "9m30s", "--reason", "holiday"]
    assert (await service.secbeat(*pause)).code == 0
    service.world.load(0.02)
    await service.world.clock.advance(300)
    assert len(service.world.active()) == 2, "removal is blocked"
    assert service.world.core.pool("default").decision.code == "PAUSED_IN"
    service.world.load(0.95)
    await settled(service, 3)  # growth is allowed
    service.world.load(0.02)
    pool = service.world.core.pool
    await service.world.clock.advance((pool("default").pause.until - service.world.clock.now()).total_seconds() - 1)
    assert (len(service.world.active()), pool("default").decision.code) == (3, "PAUSED_IN")
    await service.world.clock.advance(2)
    assert pool("default").pause is None
    assert pool("default").decision.direction == "down", "it is looked at when the pause ends, not an interval later"
    events = [event for event in await service.audit.newest(100) if "pause" in (event.after or {})]
    begun, ended = events[-2:]
    assert (begun.who, begun.after["pause"]["reason"], begun.status) == ("the-admin", "holiday", 200)
    assert (ended.who, ended.what) == ("autoscaler", "the pause of pool default has run out")
    assert (ended.before["pause"]["by"], ended.after) == ("the-admin", {"pause": None})


async def test_an_override_is_not_fought_and_a_stale_revision_does_nothing(serve):
    service = await serve(pool=QUICK)
    await settled(service)
    planned = await service.secbeat("scale", "default", "3", "--dry-run")
    revision = planned.out.rsplit("revision ", 1)[1].strip()
    assert (await service.secbeat("scale", "default", "3", "--for", "1h", "--if-revision", revision)).code == 0
    await settled(service, 3)
    stale = await service.secbeat("scale", "default", "1", "--if-revision", revision)
    assert (stale.code, "error[CHANGED_MEANWHILE]" in stale.err) == (3, True)
    service.world.load(0.02)
    await service.world.clock.advance(3000)
    assert len(service.world.active()) == 3
    await service.world.clock.advance(900)
    await settled(service, 1)


async def test_a_hundred_evaluations_give_a_hundred_records_each_with_a_reason(serve):
    from secbeat import catalogue

    service = await serve(pool={**QUICK, "scaling_check_interval_seconds": 10, "max": 2})
    await settled(service)
    for number in range(100):
        service.world.load(0.95 if number % 10 == 5 else 0.02 if number % 10 == 9 else 0.5)
        await service.world.clock.advance(10)
    records = service.world.core.decisions("default", newest=1000)
    assert len(records) == 100
    assert [one.revision for one in records] == list(range(records[0].revision, records[0].revision + 100))
    assert {one.direction for one in records} == {"hold", "up", "down"}
    for one in records:
        assert catalogue.lookup(one.code).kind == "reason"
        assert one.triggers
        assert one.policy
        assert one.desired - one.capacity == {"up": one.size, "down": -one.size, "hold": 0}[one.direction]


async def test_the_list_of_decisions_shows_each_run_of_equal_ones_once_and_every_one_on_demand(serve):
    service = await serve(pool={**QUICK, "max": 1})
    await settled(service)
    await service.world.clock.advance(100)
    service.world.load(0.95)
    await service.world.clock.advance(100)
    listed = (await service.secbeat("decisions")).out.splitlines()
    assert " BETWEEN_THRESHOLDS " in listed[-2]
    assert " AT_MAX " in listed[-1]
    assert len(listed) < 8
    every = (await service.secbeat("decisions", "--every", "--newest", "12")).out.splitlines()
    assert len(every) == 13
    shown = await service.secbeat("decisions", "show", "default")
    assert shown.first.startswith("cpu 95 % of 1 node")
    assert "triggers.0.name" in shown.out
