"""The decision tick, the list of nodes, and the memory of a fleet of 10,000 and of 100,000 nodes.

Each figure comes from a process of its own on one core, which has imported the whole orchestrator, as in production.
Times are CPU milliseconds, the best of fifteen runs: what a busy neighbour adds through shared caches is not ours.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import orchestrator.app  # noqa: F401 - its memory is part of what is measured
from bench.harness import Row, pinned, repeat, report, resident_mib
from orchestrator.fleet import Registry
from orchestrator.scaling import History, decide, summarise
from secbeat import ids
from secbeat.clock import SystemClock
from secbeat.settings import PoolSettings
from secbeat.subjects import heartbeat
from secbeat.wire.heartbeat import HeartbeatFrame, MetricsFrame, encode_frame
from secbeat.wire.jobs import Machine
from secbeat.wire.nodes import NodeRecord

TIMES = 15
_rng = random.Random(7)  # noqa: S311 - load, not secrets


def filled(nodes: int, pools: int) -> Registry:
    """A registry whose nodes have all beaten three times."""
    registry = Registry(clock=SystemClock(), default_interval=5.0)
    joined = datetime.now(UTC) - timedelta(hours=1)
    for number in range(nodes):
        node_id, pool = str(uuid.UUID(int=_rng.getrandbits(128), version=4)), f"pool-{number % pools}"
        address, name = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", ids.machine_name(pool, node_id)
        registry.put(
            NodeRecord(
                node_id=node_id,
                pool=pool,
                state="active",
                state_since=joined,
                created_at=joined,
                registered_at=joined,
                op_id=ids.new_op_id(),
                boot_id=ids.new_boot_id(),
                public_ip=address,
                peer_address=address,
                nats_public_key="U" + "".join(_rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=55)),
                agent_version="0.1.0",
                machine=Machine(id=name, name=name, address=address, blueprint_digest="sha256:" + "a" * 64),
            )
        )
    for seq in (1000, 1001, 1002):
        beat(registry, [node.node_id for node in registry.nodes()], seq)
    return registry


def beat(registry: Registry, node_ids: list[str], seq: int) -> None:
    """One heartbeat of each; loads between the default thresholds."""
    for node_id in node_ids:
        node = registry.get(node_id)
        if node is None or node.boot_id is None:
            raise AssertionError(node_id)
        metrics = MetricsFrame(
            cpu=_rng.uniform(0.4, 0.7),
            memory=_rng.random(),
            connections=_rng.randrange(5000),
            in_flight=_rng.randrange(300, 900),
            rps=_rng.uniform(1, 900),
        )
        frame = HeartbeatFrame(
            node_id=node_id,
            boot_id=node.boot_id,
            seq=seq,
            sent_at="2026-01-01T00:00:00.000Z",
            status="Active",
            pool=node.pool,
            metrics=metrics,
            agent_version="0.1.0",
        )
        registry.on_frame(heartbeat(node_id), encode_frame(frame))


# ---------------------------------------------------------------------- one process each


def tick(nodes: int, pools: int) -> dict[str, float]:
    """Milliseconds of CPU for one evaluation of every pool."""
    registry, clock = filled(nodes, pools), SystemClock()
    policy, names = PoolSettings(max=100_000), [f"pool-{number}" for number in range(pools)]
    histories = dict.fromkeys(names, History())

    def once() -> None:
        for name in names:
            seen = summarise(registry.nodes(name), pool=name, policy=policy, now=clock.monotonic())
            decision = decide(policy, histories[name], seen, clock.now())
            histories[name] = histories[name].after(decision)
            if decision.code != "BETWEEN_THRESHOLDS" or seen.fresh != nodes // pools:
                raise AssertionError(decision)

    return {"ms": min(repeat(TIMES, lambda: cpu_ms(once), warmup=2))}


def listing(nodes: int) -> dict[str, float]:
    """Milliseconds for GET /api/v1/nodes when a fifth of the nodes have beaten since the last one."""
    registry = filled(nodes, 1)
    node_ids = [node.node_id for node in registry.nodes()]
    list(registry.listing())
    totals, worsts = [], []
    for number in range(TIMES):
        beat(registry, node_ids[number % 5 :: 5], 2000 + number)
        chunks, total, worst = registry.listing(), 0.0, 0.0
        while True:
            begin = time.process_time()
            chunk = next(chunks, None)
            took = (time.process_time() - begin) * 1000
            if chunk is None:
                break
            total, worst = total + took, max(worst, took)
        totals.append(total)
        worsts.append(worst)
    rows = json.loads(b"".join(registry.listing()))
    if len(rows) != nodes or len({row["node_id"] for row in rows}) != nodes:
        raise AssertionError(len(rows))
    dumped = min(repeat(TIMES, lambda: cpu_ms(lambda: json.dumps(rows))))
    return {"ms": min(totals), "worst": max(worsts), "dumps": dumped}


def memory(nodes: int) -> dict[str, float]:
    """Resident MiB: before, with the fleet, and after somebody has listed it."""
    before = resident_mib()
    registry = filled(nodes, 1)
    held = resident_mib()
    for _ in registry.listing():
        pass
    return {"before": before, "mib": held, "listed": resident_mib(), "nodes": len(registry)}


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of this process: other load on the machine does not count."""
    begin = time.process_time()
    work()
    return (time.process_time() - begin) * 1000


def child(what: str, *numbers: int) -> dict[str, float]:
    """Run one of the above in a fresh process on core 0."""
    with pinned(0):
        done = subprocess.run(
            [sys.executable, "-m", "bench.bench_tick", what, *map(str, numbers)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        )
    return dict(json.loads(done.stdout))


def main() -> int:
    """All rows."""
    rows = [
        Row(f"tick, {nodes:,} nodes, {pools} pool{'s'[: pools > 1]}", child("tick", nodes, pools)["ms"], "ms CPU",
            target=target, better="lower")
        for nodes, target in ((10_000, 5), (100_000, 60))
        for pools in (1, 100)
    ]  # fmt: skip
    listed = child("listing", 10_000)
    rows += [
        Row("list of 10,000 nodes, a fifth changed", listed["ms"], "ms CPU", reference=listed["dumps"], target=15,
            better="lower"),
        Row("its largest chunk", listed["worst"], "ms CPU", target=8, better="lower"),
    ]  # fmt: skip
    for nodes, target in ((10_000, 75), (100_000, 170)):
        held = child("memory", nodes)
        rows += [
            Row(f"resident, {nodes:,} nodes (empty: {held['before']:.0f})", held["mib"], "MiB", target=target,
                better="lower"),
            Row("the same, after a listing", held["listed"], "MiB"),
        ]  # fmt: skip
    return report("tick", rows)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    run: dict[str, Callable[..., dict[str, float]]] = {"tick": tick, "listing": listing, "memory": memory}
    print(json.dumps(run[sys.argv[1]](*map(int, sys.argv[2:]))))
