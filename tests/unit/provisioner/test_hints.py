from __future__ import annotations

import asyncio
import json

import pytest

from provisioner.hints import cancel_on_hint
from secbeat import subjects
from secbeat.testing import settle


async def hint(world, op_id, content):
    payload = content if isinstance(content, bytes) else json.dumps(content).encode()
    await world.messaging.linked().publish(subjects.job_hint(op_id), payload)
    await settle()


async def test_a_request_over_nats_cancels_the_job(world):
    world.tasks.append(asyncio.create_task(cancel_on_hint(world.messaging, world.worker)))
    taken = await world.send()
    await settle()
    await hint(world, taken.job.op_id, {"v": 1, "cancel": True})
    assert (await world.job(taken.job.op_id)).state == "cancelled"


@pytest.mark.parametrize(
    "content", [{"cancel": False}, {"cancel": "yes"}, {"state": "running"}, b"", b"\xff", b'["cancel"]', b'"cancel"']
)
async def test_whatever_else_is_said_there_changes_nothing(world, content):
    task = asyncio.create_task(cancel_on_hint(world.messaging, world.worker))
    world.tasks.append(task)
    taken = await world.send()
    await settle()
    await hint(world, taken.job.op_id, content)
    await hint(world, "not-an-id", {"cancel": True})
    assert (await world.job(taken.job.op_id)).state == "queued"
    assert not task.done()
