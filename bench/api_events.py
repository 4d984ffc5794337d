"""Part of the API's bench: fifty readers of the stream of events, two hundred events a second."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from bench.harness import Row, percentile
from orchestrator.events import EventHub
from secbeat.api import Listener

CLIENTS, RATE, SECONDS = 50, 200, 4.0


async def measure(listener: Listener, hub: EventHub, core: int) -> list[Row]:
    """Rows of the stream; the server runs in this process, the readers in one on another core."""
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(core), sys.executable, "-m", "bench.api_events", str(listener.port),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    while hub.followers < CLIENTS:  # noqa: ASYNC110 - the clients are another process
        await asyncio.sleep(0.01)
    stalls: list[float] = []
    watching = asyncio.create_task(_watch(stalls))
    cpu, start = time.process_time(), time.perf_counter()
    for number in range(int(RATE * SECONDS)):
        hub.publish("bench.tick", "Something happened, with a sentence of the usual length.", at_ns=time.time_ns())
        await asyncio.sleep(max(0.0, start + (number + 1) / RATE - time.perf_counter()))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - start
    watching.cancel()
    output, _ = await process.communicate(b"done\n")
    counts, delays = json.loads(output)
    assert counts == [int(RATE * SECONDS)] * CLIENTS, counts
    assert hub.dropped_feeds == 0
    return [
        Row(f"SSE: {CLIENTS} clients, {RATE} events/s, worst stall of the loop", max(stalls) * 1000, "ms", None, 50,
            "lower"),
        Row("  stall of the loop, p99", percentile(stalls, 99) * 1000, "ms"),
        Row("  from event to reader, p99", percentile(delays, 99), "ms"),
        Row("  CPU of the server", 100 * cpu / wall, "%"),
    ]  # fmt: skip


async def _watch(stalls: list[float]) -> None:
    while True:
        asked = time.perf_counter()
        await asyncio.sleep(0.001)
        stalls.append(time.perf_counter() - asked - 0.001)


async def _read(port: int, delays: list[float]) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer bench\r\n\r\n")
    count = 0
    while count < RATE * SECONDS:
        line = await reader.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: ") and b"bench.tick" in line:
            count += 1
            delays.append((time.time_ns() - json.loads(line[6:])["facts"]["at_ns"]) / 1e6)
    writer.transport.abort()
    return count


async def _clients(port: int) -> tuple[list[int], list[float]]:
    delays: list[float] = []
    counts = await asyncio.gather(*(_read(port, delays) for _ in range(CLIENTS)))
    return list(counts), delays


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_clients(int(sys.argv[1])))))
