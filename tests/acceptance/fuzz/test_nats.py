"""Every subject that the services listen to, under hostile messages: nothing is applied, everything goes on."""

from __future__ import annotations

import asyncio
import random

import nats
import pytest

from secbeat import subjects
from tests.acceptance.fuzz.hostile import BODIES

pytestmark = pytest.mark.timeout(120)

STRANGER, OP = "3f0c9a52-8b1e-4c86-9d0e-6d1f4b7a2c11", "01JDG5Y3Q8V7N2M4K6H0T9R1WX"
VERBS = ("terminate", "resume", "blocklist", "ping", "nonsense")


def targets(node_id: str) -> list[str]:
    return [
        subjects.heartbeat(node_id),
        subjects.heartbeat(STRANGER),
        subjects.heartbeat("no-uuid"),
        *(subjects.command(node_id, verb) for verb in VERBS),
        subjects.job_hint(OP),
        subjects.job_hint("no-ulid"),
        subjects.event("nonsense"),
        subjects.LEGACY_WAF_EVENTS,
        subjects.LEGACY_CONTROL,
        subjects.LEGACY_BLOCK,
        subjects.LEGACY_TELEMETRY.replace(">", "x"),
    ]


def bodies() -> list[bytes]:
    """The hostile bodies that NATS carries, and a good heartbeat with bytes changed."""
    random_ = random.Random(20261125)
    found = [body for body in BODIES.values() if len(body) < 900_000]
    good = (
        b'{"v":1,"node_id":"%s","boot_id":"%s","seq":1,"sent_at":"2026-11-25T03:00:00Z","status":"Terminating",'
        b'"pool":"default","metrics":{"cpu":0.4,"memory":0.3,"connections":12}}'
    ) % (STRANGER.encode(), STRANGER.encode())
    for _ in range(300):
        raw = bytearray(good)
        for _ in range(random_.randrange(1, 6)):
            raw[random_.randrange(len(raw))] = random_.randrange(256)
        found.append(bytes(raw))
    return found


def test_hostile_messages_change_nothing(site):
    async def campaign():
        connection = await nats.connect(site.nats)
        (node_id, *_) = [node["node_id"] for node in site.get("/api/v1/nodes").json()]
        for subject in targets(node_id):
            for body in bodies():
                await connection.publish(subject, body)
            await connection.flush(10)
        await connection.drain()
        # The orchestrator has read them all once it answers about a later one.
        await asyncio.to_thread(site.get, "/api/v1/nodes")

    asyncio.run(campaign())


def test_a_flood_of_messages_delays_nobody_for_long(site):
    async def campaign():
        connection = await nats.connect(site.nats)
        for number in range(50_000):
            await connection.publish(subjects.heartbeat(STRANGER), b'{"v":1}')
            if number % 5_000 == 0:
                await connection.flush(10)
                answer = await asyncio.to_thread(site.get, "/api/v1/health")
                assert answer.elapsed.total_seconds() < 5
        await connection.drain()

    asyncio.run(campaign())
