from __future__ import annotations

import asyncio
import json

import pytest

from provisioner.webhook.intake import Refused
from secbeat import ids
from secbeat.settings import BlueprintSettings
from secbeat.wire.webhook import UnsignedBody

FAILED = "6f2f1c52-8a3c-4a53-9d5f-3f6ad1f1a111"
PAYLOADS = {
    "scale-up, fraction, f32": {
        "reason": "PREDICTED_HIGH_FLEET_CPU_LOAD",
        "timestamp": "2026-01-01T00:00:00.123456789Z",
        "fleet_metrics": {
            "active_nodes": 2,
            "avg_cpu_usage": 0.8523451,
            "avg_memory_usage": 0.4,
            "total_connections": 7,
        },
        "prediction_info": {"predicted_cpu_usage": 0.9, "prediction_horizon_minutes": 10, "confidence": 0.8},
    },
    "scale-up, percent": {
        "reason": "HIGH_FLEET_CPU_LOAD",
        "timestamp": "2026-01-01T00:00:00Z",
        "fleet_metrics": {"active_nodes": 2, "avg_cpu_usage": 85.2, "avg_memory_usage": 40, "total_connections": 7},
        "prediction_info": None,
    },
    "self-healing, no metrics": {
        "reason": "UNEXPECTED_NODE_FAILURE",
        "timestamp": "2026-01-01T00:00:00.123Z",
        "failed_node_id": FAILED,
        "failed_node_ip": "2001:db8::1",
    },
}


async def ask(world, payload):
    raw = json.dumps(payload).encode()
    return await world.unsigned.request(UnsignedBody.decode(raw), raw)


def scale_up(second=0):
    return PAYLOADS["scale-up, percent"] | {"timestamp": f"2026-01-01T00:00:{second:02}Z"}


def failure(second=0, node=FAILED):
    moment = f"2026-01-01T00:00:{second:02}Z"
    return PAYLOADS["self-healing, no metrics"] | {"timestamp": moment, "failed_node_id": node}


async def finish(world, op_id, state):
    def end(job):
        return job.model_copy(update={"state": state, "finished_at": world.clock.now()})

    world.limits.ended(await world.store.change(op_id, end))


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
async def test_each_payload_of_the_original_becomes_a_job(world, payload):
    taken = await ask(world, payload)
    assert taken.status == "accepted"
    assert not taken.job.signed
    assert taken.job.reason == payload["reason"]
    assert taken.job.failed_node_id == payload.get("failed_node_id")
    assert ids.check_op_id(taken.job.op_id)
    assert world.queue.waiting == [taken.job.op_id]


async def test_one_scale_up_at_a_time_per_pool(world):
    first = await ask(world, scale_up(0))
    second = await ask(world, scale_up(30))
    assert (second.status, second.job.op_id) == ("known", first.job.op_id)
    await finish(world, first.job.op_id, "succeeded")
    third = await ask(world, scale_up(59))
    assert third.status == "accepted"
    assert third.job.op_id != first.job.op_id


async def test_scale_ups_that_arrive_together_make_one_job(world):
    taken = await asyncio.gather(*(ask(world, scale_up(second)) for second in range(20)))
    assert sorted(one.status for one in taken) == ["accepted"] + ["known"] * 19
    assert len(world.queue.waiting) == 1


async def test_one_replacement_per_failed_node(world):
    first = await ask(world, failure(0))
    await finish(world, first.job.op_id, "succeeded")
    again = await ask(world, failure(30))
    assert (again.status, again.job.op_id) == ("known", first.job.op_id)
    other = await ask(world, failure(31, "6f2f1c52-8a3c-4a53-9d5f-3f6ad1f1a222"))
    assert other.status == "accepted"


async def test_a_replacement_that_failed_may_be_asked_for_again(world):
    first = await ask(world, failure(0))
    await finish(world, first.job.op_id, "failed")
    assert (await ask(world, failure(30))).status == "accepted"


async def test_a_replacement_and_a_scale_up_do_not_wait_for_each_other(world):
    assert (await ask(world, scale_up())).status == "accepted"
    assert (await ask(world, failure())).status == "accepted"


async def test_the_same_bytes_again_are_the_same_request_even_after_its_end(world):
    first = await ask(world, scale_up(0))
    await finish(world, first.job.op_id, "succeeded")
    again = await ask(world, scale_up(0))
    assert (again.status, again.job.op_id) == ("known", first.job.op_id)


async def test_limits_hold_for_unsigned_senders_and_a_refusal_does_not_block_the_next(make_world):
    world = make_world(blueprints={"default": BlueprintSettings(max_machines=0)})
    with pytest.raises(Refused) as caught:
        await ask(world, scale_up(0))
    assert caught.value.code == "POOL_MACHINES_LIMIT"
    world.blueprints._settings["default"] = BlueprintSettings(max_machines=1)
    assert (await ask(world, scale_up(30))).status == "accepted"


async def test_all_unsigned_machines_stand_under_one_cluster_id_that_is_kept(world):
    first = await ask(world, scale_up())
    second = await ask(world, failure())
    assert first.job.cluster_id == second.job.cluster_id == (await world.unsigned.cluster_id())
