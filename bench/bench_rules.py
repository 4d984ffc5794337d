"""The blocklist with 100,000 entries: its memory, changes, the snapshot at the orchestrator and at a node, look-ups.

Each part runs in a process of its own on one core. References, in the same run: for a block a ``json.dumps`` of one
entry's shard; for the snapshot ``json.dumps`` of the same rows and for its reading ``json.loads``; for a look-up a
``set`` of the parsed addresses. "Longest stall" is the most CPU time that passed before another task of the same event
loop, woken every millisecond, got its turn. All times are CPU time of the whole process, its HTTP client included: what
else runs on the machine does not count.

The store answers from memory: what NATS takes for a confirmed write comes on top of a block, once.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import aiohttp

import orchestrator.app
from bench.harness import Row, median, percentile, pinned, report, resident_mib
from node.dataplane import DataPlane
from node.dataplane.blocklist import Blocklist, parse_address
from node.registration import Orchestrator
from node.rules import RulesFollower
from orchestrator.control import Control
from orchestrator.events import EventHub
from orchestrator.fleet import Registry
from orchestrator.http import Audit, build
from orchestrator.memory import settle
from orchestrator.rules import BlockRecord, Rules
from secbeat.api import Listener, listen
from secbeat.clock import SystemClock
from secbeat.testing import MemoryBucket, MemoryLease, MemoryMessaging
from secbeat.wire.rules import BlockRequest, decode_snapshot

ENTRIES = 100_000
TIMES = 7
_TICK = 0.001


def address(number: int) -> str:
    """The n-th blocked address."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


class Unheard(MemoryMessaging):
    """Keeps nothing of what is published."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Drop it."""


def rules(bucket: MemoryBucket, lease: MemoryLease) -> Rules:
    """The orchestrator's part, on a store in memory."""
    return Rules(bucket=bucket, lease=lease, messaging=Unheard(), clock=SystemClock(), max_entries=ENTRIES + 1000)


async def filled() -> tuple[Rules, MemoryBucket, MemoryLease]:
    """A list of 100,000 entries, made by blocking each."""
    lease = MemoryLease()
    bucket = MemoryBucket(lease=lease)
    made = rules(bucket, lease)
    for number in range(ENTRIES):
        request = BlockRequest(ip=address(number), reason="scanned for /.env", ttl_seconds=86400)
        await made.block(request, by="operator")
    return made, bucket, lease


async def served(made: Rules) -> Listener:
    """The whole application in front of it."""
    clock = SystemClock()
    app = build(
        control=cast("Control", SimpleNamespace(leader=True)),
        registry=Registry(clock=clock, default_interval=5.0),
        rules=made,
        events=EventHub(clock),
        audit=Audit(clock=clock),
        clock=clock,
        tokens=lambda _token: None,
    )
    return await listen(app, "127.0.0.1:0")


async def stalled(work: Awaitable[Any]) -> tuple[Any, float, float]:
    """What ``work`` gives, its CPU seconds, and the longest stall of the loop meanwhile, in seconds."""
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            began = time.process_time()
            await asyncio.sleep(_TICK)
            worst = max(worst, time.process_time() - began)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    worst, began = 0.0, time.process_time()
    found = await work
    took = time.process_time() - began
    await asyncio.sleep(0)
    watching.cancel()
    return found, took, worst


# ---------------------------------------------------------------------- one process each


async def keeping() -> dict[str, float]:
    """Blocks and unblocks at 100,000 entries, memory, reading the store."""
    made, bucket, lease = await filled()
    stored = sum(map(len, bucket.data.values()))
    largest = max(map(len, bucket.data.values()))
    took: list[float] = []
    for number in range(ENTRIES, ENTRIES + 300):
        request = BlockRequest(ip=address(number), reason="scanned for /.env", ttl_seconds=86400)
        began = time.process_time()
        await made.block(request, by="operator")
        await made.unblock(request.ip, by="operator")
        took.append((time.process_time() - began) * 1000)
    again = rules(bucket, lease)
    _, load_seconds, load_stall = await stalled(again.reading())
    if len(again) != ENTRIES or again.version != made.version:
        raise AssertionError(len(again))
    return {
        "stored_mib": stored / 2**20,
        "largest_kib": largest / 1024,
        "change_ms": median(took),
        "change_p99_ms": percentile(took, 99),
        "load_ms": load_seconds * 1000,
        "load_stall_ms": load_stall * 1000,
    }


async def sending() -> dict[str, float]:
    """The snapshot and the list over HTTP, stalls of the orchestrator's loop; the client only counts bytes."""
    made, _, _ = await filled()
    settle()
    listener = await served(made)
    rows = [{"ip": record.ip, "expires_at": record.expires_at.isoformat()} for record in made.listing()]
    found: dict[str, list[float]] = {name: [] for name in ("dumps", "snapshot", "snapshot_stall", "list", "list_stall")}
    size = 0

    async def get(path: str) -> int:
        count = 0
        async with session.get(f"{listener.url}/api/v1/rules/{path}") as response:
            async for chunk in response.content.iter_any():
                count += len(chunk)
        return count

    async with aiohttp.ClientSession() as session:
        for _ in range(TIMES):
            began = time.process_time()
            json.dumps(rows)
            found["dumps"].append((time.process_time() - began) * 1000)
            for name, path in (("snapshot", "snapshot"), ("list", "blocked_ips")):
                size_of, took, stall = await stalled(get(path))
                size = size_of if name == "snapshot" else size
                found[name].append(took * 1000)
                found[f"{name}_stall"].append(stall * 1000)
    await listener.close()
    return {name: median(values) for name, values in found.items()} | {
        "worst_stall": max(found["snapshot_stall"] + found["list_stall"]), "snapshot_mib": size / 2**20,
    }  # fmt: skip


class Plane:
    """Of a data plane what the follower needs."""

    def set_blocklist(self, blocklist: Blocklist) -> None:
        """Keep it."""
        self.blocklist = blocklist


class Source:
    """An orchestrator that has sent its answer already."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def rules(self, _since: int | None, *, token: str | None) -> Any:  # noqa: ARG002 - as the real one
        """Read the answer, as :class:`node.registration.Orchestrator` does."""
        return decode_snapshot(self.body)


def _same(source: Orchestrator) -> Orchestrator:
    return source


async def reading() -> dict[str, float]:
    """A node takes over the snapshot: time, stall, memory; then look-ups."""
    made, _, _ = await filled()
    version, records = await made.complete()
    body = snapshot(version, list(records))
    del made, records
    gc.collect()
    found: dict[str, list[float]] = {"loads": [], "load": [], "stall": []}
    for _ in range(TIMES):
        began = time.process_time()
        json.loads(body)
        found["loads"].append((time.process_time() - began) * 1000)
        plane = Plane()
        source = cast("Orchestrator", Source(body))
        follower = RulesFollower(
            cast("DataPlane", plane),
            SystemClock(),
            source=partial(_same, source),
            token=lambda: None,
        )
        follower.refresh()
        running = asyncio.create_task(follower.run())
        _, took, stall = await stalled(follower.ready())
        running.cancel()
        if plane.blocklist.size != ENTRIES:
            raise AssertionError(plane.blocklist.size)
        found["load"].append(took * 1000)
        found["stall"].append(stall * 1000)
    kept = Blocklist(1, [address(number) for number in range(ENTRIES)])
    return {name: median(values) for name, values in found.items()} | {
        "worst_stall": max(found["stall"]), **looked_up(kept),
    }  # fmt: skip


async def holding() -> dict[str, float]:
    """Memory of the list itself, at a node and at the orchestrator; the store's in-memory stand-in is left out."""
    before, now = resident_mib(), datetime.now(UTC)
    kept = Blocklist(1, (address(number) for number in range(ENTRIES)))
    node = resident_mib()
    theirs = orchestrator.rules.Blocklist(
        BlockRecord(
            ip=address(number),
            reason=f"scanned for /.env, case {number}",
            blocked_at=now + timedelta(seconds=number),
            blocked_by=f"operator {number % 9}",
            ttl_seconds=86400 + number,
            expires_at=now + timedelta(seconds=86400 + 2 * number),
        )
        for number in range(ENTRIES)
    )
    if not kept.size == len(theirs) == ENTRIES:
        raise AssertionError(kept.size)
    return {"mib": node - before, "orchestrator_mib": resident_mib() - node}


def looked_up(kept: Blocklist) -> dict[str, float]:
    """Nanoseconds per look-up of ours, with addresses and networks of eight lengths, and of a bare set."""
    few = Blocklist(1, [address(number) for number in range(10)])
    for one in (kept, few):
        for length in range(17, 24):
            one.put((4, length, 203 << (length - 8)))
    asked = [f"198.51.{number >> 8 & 255}.{number & 255}" for number in range(4000)]
    bare = {parse_address(address(number)) for number in range(ENTRIES)}

    def nanoseconds(look: Callable[[str], bool]) -> float:
        best = float("inf")
        for _ in range(TIMES):
            began = time.process_time()
            for text in asked:
                if look(text):
                    raise AssertionError(text)
            best = min(best, time.process_time() - began)
        return best / len(asked) * 1e9

    return {
        "lookup": nanoseconds(kept.blocks),
        "lookup_few": nanoseconds(few.blocks),
        "lookup_set": nanoseconds(lambda text: parse_address(text) in bare),
    }


def snapshot(version: int, records: list[BlockRecord]) -> bytes:
    """The body that the orchestrator sends."""
    rows = [{"ip": record.ip, "expires_at": record.expires_at.isoformat()} for record in records]
    return json.dumps({"v": 1, "version": version, "complete": True, "blocked": rows, "removed": []}).encode()


def child(what: str) -> dict[str, float]:
    """Run one of the above in a fresh process on core 0."""
    with pinned(0):
        done = subprocess.run(
            [sys.executable, "-m", "bench.bench_rules", what],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        )
    return dict(json.loads(done.stdout))


def main() -> int:
    """All rows."""
    kept, sent, read = child("keeping"), child("sending"), child("reading")
    read |= child("holding")
    rows = [
        Row("orchestrator: memory of the list", read["orchestrator_mib"], "MiB", target=100, better="lower"),
        Row("stored, 4,096 keys", kept["stored_mib"], "MiB", target=32, better="lower"),
        Row("  its largest key (a message holds 1,024)", kept["largest_kib"], "KiB", target=512, better="lower"),
        Row("a block and its unblock", kept["change_ms"], "ms CPU", target=2, better="lower"),
        Row("  p99", kept["change_p99_ms"], "ms CPU"),
        Row("the list read from the store", kept["load_ms"], "ms CPU", target=2000, better="lower"),
        Row("  longest stall", kept["load_stall_ms"], "ms CPU", target=50, better="lower"),
        Row(f"the snapshot over HTTP ({sent['snapshot_mib']:.1f} MiB)", sent["snapshot"], "ms CPU", sent["dumps"]),
        Row("GET blocked_ips, whole", sent["list"], "ms CPU", sent["dumps"]),
        Row("  longest stall of both, worst run", sent["worst_stall"], "ms CPU", target=50, better="lower"),
        Row("node: the snapshot read and in force", read["load"], "ms CPU", read["loads"], 2000, "lower"),
        Row("  longest stall, worst run", read["worst_stall"], "ms CPU", target=50, better="lower"),
        Row("  memory of the list", read["mib"], "MiB", target=40, better="lower"),
        Row("look-up of a client, 8 prefix lengths", read["lookup"], "ns CPU", read["lookup_set"], 6, "lower", "ratio"),
        Row("  the same with 10 entries", read["lookup_few"], "ns CPU", read["lookup_set"]),
    ]
    return report("rules", rows)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    parts = {"keeping": keeping, "sending": sending, "reading": reading, "holding": holding}
    print(json.dumps(asyncio.run(parts[sys.argv[1]]())))
