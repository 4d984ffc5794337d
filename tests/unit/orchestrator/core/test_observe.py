"""Promise of mode 'observe': whatever happens, nothing is issued. One gate, one property."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.control import Missing
from orchestrator.reconcile.gate import Gate, GateClosed
from orchestrator.testing import REGISTRATION, FakeNode, world
from secbeat import ids
from secbeat.errors import RefusedError, SecbeatError
from secbeat.testing import MemoryLease, MemoryMessaging, settle
from secbeat.wire.pools import PauseRequest, ResumeRequest, ScaleRequest
from secbeat.wire.registration import RegisterRequest

STEPS = st.lists(
    st.sampled_from(
        ["register", "load_high", "load_low", "crash", "final", "drain", "scale", "retire", "resume", "pause",
         "new_node", "restart", "minute", "hour"]
    ),
    min_size=3,
    max_size=14,
)  # fmt: skip


async def _step(w, step):
    nodes = list(w.nodes.all.values())
    if step == "register":
        answer = await w.core.register(
            RegisterRequest.model_validate(REGISTRATION), peer="127.0.0.1", host="h", token=None
        )
        w.nodes.all[answer.node_id] = FakeNode(answer.node_id, ids.new_boot_id(), "default")
        w.beat(w.nodes.all[answer.node_id])
    elif step in {"load_high", "load_low"}:
        w.load(0.99 if step == "load_high" else 0.01)
    elif step == "crash" and nodes:
        w.crash(nodes[0].node_id)
    elif step == "final" and nodes:
        nodes[-1].alive = nodes[-1].beating = False
        w.beat(nodes[-1], "Terminating")
    elif step == "drain" and nodes:
        await w.core.drain(nodes[0].node_id, reason="MANUAL", by="x")
    elif step == "scale":
        await w.core.scale("default", ScaleRequest(size=5), by="x")
    elif step == "retire":
        await w.core.retire("default", by="x")
    elif step == "resume":
        await w.core.resume("default", ResumeRequest(), by="x")
    elif step == "pause":
        await w.core.pause("default", PauseRequest(), by="x")
    elif step == "new_node":
        await w.core.new_node("default", server_url="http://x", by="x")
    elif step == "restart":
        await w.restart()
    await w.clock.advance({"minute": 60, "hour": 600}.get(step, 15))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_an_observed_pool_sends_no_webhook_calls_no_node_and_writes_no_operation(steps):
    async def scenario():
        w = world(pool={"mode": "observe", "min": 2, "warmup_seconds": 0, "scale_down_cooldown_seconds": 0})
        async with w:
            for step in steps:
                with contextlib.suppress(RefusedError, Missing):
                    await _step(w, step)
            await settle()
            assert w.receiver.calls == []
            assert w.nodes.terminated == []
            assert w.nodes.resumed == []
            assert [key for key in w.stored.data if key.startswith("op.")] == []
            assert w.core.decisions("default"), "it decides and records all the same"

    with asyncio.Runner() as runner:
        runner.run(scenario())


async def test_an_observed_pool_records_what_it_would_do():
    async with world(pool={"mode": "observe", "min": 2}) as w:
        decision = w.core.decisions("default")[-1]
        assert (decision.direction, decision.size, decision.would, decision.op_ids) == ("up", 2, True, ())
        assert "observing" in w.core.why_pool("default").sentence


async def test_an_operator_is_told_why_nothing_happens():
    async with world(pool={"mode": "observe", "min": 0}) as w:
        with pytest.raises(SecbeatError) as refused:
            await w.core.new_node("default", server_url="http://x", by="x")
        assert (refused.value.code, refused.value.exit_code) == ("OBSERVE_MODE", 3)


async def test_open_operations_stand_still_while_a_pool_observes_and_go_on_afterwards():
    w = world()
    w.receiver.manner = "busy"
    async with w:
        observing = w.settings.model_copy(
            update={"pools": {"default": w.settings.pools["default"].model_copy(update={"mode": "observe"})}}
        )
        w.core.reload(observing)
        before, sent = w.stored.data, len(w.receiver.calls)
        await w.clock.advance(1200)
        assert len(w.receiver.calls) == sent
        assert {key: value for key, value in w.stored.data.items() if key.startswith("op.")} == {
            key: value for key, value in before.items() if key.startswith("op.")
        }
        w.core.reload(w.settings)
        w.receiver.manner = "tracked"
        await w.until(lambda: len(w.active()) == 1, within=30)


async def test_a_node_that_left_an_observed_pool_is_forgotten_without_a_teardown():
    async with world(pool={"mode": "observe", "min": 0}) as w:
        await _step(w, "register")
        await _step(w, "final")
        await w.until(lambda: w.states() == [], within=60)
        assert w.receiver.calls == []


@pytest.mark.parametrize(
    ("led", "connected", "observed", "code"),
    [
        (True, True, False, None),
        (False, True, False, "NOT_LEADER"),
        (True, False, False, "STATE_UNAVAILABLE"),
        (True, True, True, "OBSERVE_MODE"),
    ],
)
async def test_the_gate_opens_only_for_a_connected_leader_of_an_active_pool(led, connected, observed, code):
    messaging, done = MemoryMessaging(), []
    messaging.connected = connected
    gate = Gate(MemoryLease(held=led, epoch=4), messaging, lambda _pool: observed)

    async def act(epoch):
        done.append(epoch)

    if code is None:
        await gate.effect("default", act)
        assert done == [4]
    else:
        with pytest.raises(GateClosed) as closed:
            await gate.effect("default", act)
        assert (closed.value.code, closed.value.as_error().code, done) == (code, code, [])


async def test_while_nats_is_away_nothing_changes():
    w = world()
    w.receiver.manner = "busy"
    async with w:
        w.messaging.connected = False
        sent, stored = len(w.receiver.calls), w.stored.data
        await w.clock.advance(3600)
        assert len(w.receiver.calls) == sent
        assert w.stored.data == stored
        w.messaging.connected = True
        w.receiver.manner = "tracked"
        await w.until(lambda: len(w.active()) == 1, within=60)


@st.composite
def policies(draw):
    """Any policy, and a fleet that may be far outside its min and max."""
    low = draw(st.integers(0, 6))
    down, up = sorted(
        draw(st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]), min_size=2, max_size=2, unique=True))
    )
    policy = {
        "min": low,
        "max": low + draw(st.integers(0, 6)),
        "scale_down_cpu_threshold": down,
        "scale_up_cpu_threshold": up,
        "scale_up_checks": draw(st.integers(1, 3)),
        "scale_down_checks": draw(st.integers(1, 3)),
        "max_step_up": draw(st.integers(1, 20)),
        "scale_up_cooldown_seconds": draw(st.sampled_from([0, 60])),
        "scale_down_cooldown_seconds": draw(st.sampled_from([0, 60])),
        "warmup_seconds": draw(st.sampled_from([0, 30])),
        "min_fresh_fraction": draw(st.sampled_from([0.0, 0.5, 1.0])),
    }
    return policy, draw(st.integers(0, 15)), draw(st.lists(st.sampled_from([0.0, 0.05, 0.4, 0.9, 1.0]), max_size=4))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policies())
def test_whatever_the_policy_and_the_size_an_observed_pool_submits_nothing_and_says_would(drawn):
    policy, nodes, loads = drawn

    async def scenario():
        async with world(pool={**policy, "mode": "observe"}) as w:
            for _ in range(nodes):
                await _step(w, "register")
            for load in loads:
                w.load(load)
                await w.clock.advance(40)
            await settle()
            decisions = w.core.decisions("default", newest=1000)
            assert decisions
            assert all(one.would and one.op_ids == () for one in decisions)
            assert w.receiver.calls == []
            assert w.nodes.terminated == []
            assert [key for key in w.stored.data if key.startswith("op.")] == []
            missing = nodes < policy["min"] or nodes > policy["max"]
            assert not (missing and all(one.size == 0 for one in decisions)), "it says what it would do"

    with asyncio.Runner() as runner:
        runner.run(scenario())
