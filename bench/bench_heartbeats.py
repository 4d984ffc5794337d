"""Heartbeats over a real nats-server: decoded, checked and applied by the registry, per CPU-second.

The consumer runs alone on core 0; nats-server (GOMAXPROCS=1) and the generator share core 1. The reference is a nats-py
callback that only counts. The loop is closed: at most ``WINDOW`` messages are on their way, so that what is measured is
the consumer, and every lost message shows.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import nats
from nats.aio.msg import Msg

from bench.harness import Row, median, pinned, report
from orchestrator.fleet import Registry
from secbeat.bus import connect
from secbeat.bus.server import NatsServer
from secbeat.clock import SystemClock
from secbeat.settings import NatsSettings
from secbeat.subjects import HEARTBEATS, heartbeat
from secbeat.wire.heartbeat import HeartbeatFrame, LatencyFrame, MetricsFrame, encode_frame
from secbeat.wire.nodes import NodeRecord

NODES = 10_000
ROUNDS = 60  # heartbeats of each node; the first two warm up and do not count
WARM = 2 * NODES
WINDOW = 30_000  # messages on their way
REPEATS = 3
TARGET = 120_000
PROGRESS = "bench.progress"
_FIRST_SEQ = 1_000_000  # all of one width, so that a round only overwrites digits


def node_ids(kind: int) -> list[str]:
    """The same in every process; ``kind`` 0: node ids, 1: boot ids."""
    source = random.Random(kind)  # noqa: S311 - identifiers of a bench
    return [str(uuid.UUID(int=source.getrandbits(128), version=4)) for _ in range(NODES)]


# ---------------------------------------------------------------------- consumers


async def consume(url: str, mode: str) -> dict[str, float]:
    """Apply (``registry``) or count (``counting``) all heartbeats; what it took."""
    registry = filled_registry()
    if mode == "registry":
        bus = await connect(NatsSettings(url=url), name="bench", jetstream=False)
        await bus.messaging.subscribe(HEARTBEATS, registry.on_frame, hot=True)
        result = await watch(lambda: registry.counters["received"], bus.messaging.publish)
        await bus.close()
        counters = registry.counters
        applied = counters["received"] - sum(number for name, number in counters.items() if name != "received")
        return {**result, "applied": applied, "fresh": sum(node.seq > 0 for node in registry.nodes())}
    client = await nats.connect(url)
    seen = 0

    async def count(_: Msg) -> None:
        nonlocal seen
        seen += 1

    await client.subscribe(HEARTBEATS, cb=count, pending_msgs_limit=-1, pending_bytes_limit=-1)
    result = await watch(lambda: seen, client.publish)
    await client.close()
    return {**result, "applied": seen, "fresh": NODES}


def filled_registry() -> Registry:
    """Ten thousand active nodes."""
    registry = Registry(clock=SystemClock(), default_interval=5.0)
    now = datetime.now(UTC)
    for node_id, boot_id in zip(node_ids(0), node_ids(1), strict=True):
        registry.put(
            NodeRecord(
                node_id=node_id,
                pool="default",
                state="active",
                state_since=now,
                created_at=now,
                registered_at=now,
                boot_id=boot_id,
            )
        )
    return registry


async def watch(seen: Callable[[], int], publish: Callable[[str, bytes], object]) -> dict[str, float]:
    """Report progress to the generator until all has come, or nothing for three seconds."""
    total, last, idle_since = NODES * ROUNDS, -1, time.monotonic()
    begun: tuple[int, float, float] | None = None
    while True:
        now, number = time.monotonic(), seen()
        if begun is None and number >= WARM:
            begun = (number, time.process_time(), now)
        if number != last:
            last, idle_since = number, now
        await publish(PROGRESS, b"%d" % number)  # type: ignore[misc]  # both clients' publish is a coroutine
        if number >= total or (begun is not None and now - idle_since > 3) or now - idle_since > 20:
            break
        await asyncio.sleep(0.002)
    if begun is None:
        return {"per_cpu_second": 0.0, "per_second": 0.0}
    first, cpu, wall = begun
    return {
        "per_cpu_second": (last - first) / (time.process_time() - cpu),
        "per_second": (last - first) / (idle_since - wall),
    }


# ---------------------------------------------------------------------- generator


def generate(url: str) -> None:
    """Publish ``ROUNDS`` heartbeats of each node, a window ahead of the consumer; raw sockets: they cost least."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "127.0.0.1", address.port or 4222)) as link:
        link.recv(65536)
        link.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB %b 1\r\nPING\r\n' % PROGRESS.encode())
        buffer, digits = frames()
        view, progress = memoryview(buffer), Progress(link)
        step = len(buffer) // NODES * 500
        for number in range(ROUNDS):
            seq = b"%d" % (_FIRST_SEQ + number)
            for at in digits:
                buffer[at : at + len(seq)] = seq
            for part, at in enumerate(range(0, len(buffer), step)):
                progress.wait_until(number * NODES + part * 500 - WINDOW)
                link.sendall(view[at : at + step])
        progress.wait_until(NODES * ROUNDS)


class Progress:
    """What the consumer has said about itself."""

    def __init__(self, link: socket.socket) -> None:
        self._link, self._seen, self._rest = link, -1, b""

    def wait_until(self, number: int) -> None:
        """Return when the consumer has seen so many; before the first message, when it is there at all."""
        while self._seen < max(number, 0):
            data = self._rest + self._link.recv(65536)
            if b"PING\r\n" in data:
                self._link.sendall(b"PONG\r\n")
            whole, _, self._rest = data.rpartition(b"\r\n")
            if found := re.findall(rb"MSG \S+ 1 \d+\r\n(\d+)", whole):
                self._seen = int(found[-1])


def frames() -> tuple[bytearray, list[int]]:
    """One heartbeat of each node as NATS operations of one length, and where their ``seq`` stands."""
    rng, buffer, digits = random.Random(3), bytearray(), []  # noqa: S311 - load, not secrets
    for node_id, boot_id in zip(node_ids(0), node_ids(1), strict=True):
        metrics = MetricsFrame(
            cpu=rng.randrange(100, 999) / 1000,
            memory=rng.randrange(100, 999) / 1000,
            connections=rng.randrange(1000, 9999),
            in_flight=rng.randrange(100, 999),
            rps=rng.randrange(1001, 9999) / 10 + 0.01,
            latency_ms=LatencyFrame(p50=1.25, p95=8.75, p99=19.5),
        )
        frame = encode_frame(
            HeartbeatFrame(
                node_id=node_id,
                boot_id=boot_id,
                seq=_FIRST_SEQ,
                sent_at="2026-01-01T00:00:00.000Z",
                status="Active",
                pool="default",
                metrics=metrics,
                agent_version="0.1.0",
            )
        ).ljust(420)
        operation = b"PUB %b %d\r\n%b\r\n" % (heartbeat(node_id).encode(), len(frame), frame)
        digits.append(len(buffer) + operation.index(b'"seq":') + 6)
        buffer += operation
    return buffer, digits


# ---------------------------------------------------------------------- the bench


def one_run(url: str, mode: str) -> dict[str, float]:
    """One consumer and one generator, each in a process of its own."""
    command = [sys.executable, "-m", "bench.bench_heartbeats"]
    with pinned(0):
        consumer = subprocess.Popen([*command, mode, url], stdout=subprocess.PIPE, text=True)
    with pinned(1):
        generator = subprocess.Popen([*command, "generate", url])
    try:
        output, _ = consumer.communicate(timeout=120)
        generator.wait(timeout=30)
    finally:
        consumer.kill()
        generator.kill()
    return dict(json.loads(output))


async def main() -> int:
    """Runs of both consumers in turn, medians."""
    os.environ["GOMAXPROCS"] = "1"
    with tempfile.TemporaryDirectory() as directory:
        server = NatsServer(Path(directory) / "nats", port=0, open_access=True)
        with pinned(1):
            await server.start()
        try:
            runs: dict[str, list[dict[str, float]]] = {"counting": [], "registry": []}
            for mode in ["counting", "registry"] * REPEATS:
                runs[mode].append(await asyncio.to_thread(one_run, server.url, mode))
        finally:
            await server.stop()
    ours = runs["registry"]

    def middle(mode: str, key: str) -> float:
        return median([run[key] for run in runs[mode]])

    rates = (
        ("applied, 10,000 nodes, per CPU-second", "per_cpu_second", TARGET),
        ("applied, wall clock", "per_second", None),
    )
    return report(
        "heartbeats",
        [
            *(
                Row(name, middle("registry", key), "/s", reference=middle("counting", key), target=target)
                for name, key, target in rates
            ),
            Row(
                "lost or not applied",
                max(NODES * ROUNDS - run["applied"] for run in ours),
                "messages",
                target=0,
                better="lower",
            ),
            Row("nodes never heard", max(NODES - run["fresh"] for run in ours), "nodes", target=0, better="lower"),
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(asyncio.run(main()))
    if sys.argv[1] == "generate":
        generate(sys.argv[2])
    else:
        print(json.dumps(asyncio.run(consume(sys.argv[2], sys.argv[1]))))
