"""What a supervisor and a load balancer are told while NATS is away: the process lives, and it is not ready."""

from __future__ import annotations

import asyncio


async def test_while_nats_is_away_the_process_lives_and_says_what_it_waits_for(cluster):
    await cluster.start()
    status, verbose = await cluster.call("GET", "/readyz?verbose", token=None)
    assert (status, verbose["checks"]) == (200, {"nats": "ok", "lease": "ok"})
    await cluster.nats.stop()

    async def answer():
        status, body = await cluster.call("GET", "/readyz", token=None)
        return body if status == 503 and body["checks"]["nats"] != "ok" else None

    body = await cluster.until(answer, what="a readiness that names NATS")
    assert "NATS is not connected" in body["checks"]["nats"]
    assert (await cluster.call("GET", "/healthz", token=None))[0] == 200
    assert "secbeat_nats_connected 0.0" in await cluster.metrics()

    await cluster.nats.start()
    began = asyncio.get_running_loop().time()
    await cluster.until(cluster.leads, what="readiness after the outage")
    assert asyncio.get_running_loop().time() - began < 20
    assert "secbeat_nats_connected 1.0" in await cluster.metrics()
