"""The decision tick, the list of nodes, and the memory of a fleet of 10,000 and of 100,000 nodes.

Each figure comes from a process of its own on one core, which has imported the whole orchestrator and settled its
memory, as in production. Times are CPU milliseconds.

A busy neighbour takes no CPU time from us and yet slows us down, twofold and more, through the caches that we share
with it. So each measurement is made in several rounds, in which the reference and the real thing take turns; the figure
is **the median of the calmest round: the one whose reference was fastest**, whatever our own figure was in it. Beside
it stand the best single run of all rounds and the median of all runs. The reference of a tick is the mean of one number
over the same nodes; that of the list is ``json.dumps`` of it.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orchestrator.app  # noqa: F401 - its memory is part of what is measured
from bench.harness import Row, median, pinned, report, resident_mib
from orchestrator.fleet import Registry
from orchestrator.memory import settle
from orchestrator.scaling import History, decide, summarise
from secbeat import ids
from secbeat.settings import PoolSettings
from secbeat.subjects import heartbeat
from secbeat.testing import FakeClock
from secbeat.wire.heartbeat import HeartbeatFrame, MetricsFrame, encode_frame
from secbeat.wire.jobs import Machine
from secbeat.wire.nodes import NodeRecord

TIMES = 15
ROUNDS = 3
_clock = FakeClock()
_rng = random.Random(7)  # noqa: S311 - load, not secrets


def filled(nodes: int, pools: int) -> Registry:
    """A registry whose nodes have all beaten three times; time stands still, or the first would be silent again."""
    registry = Registry(clock=_clock, default_interval=5.0)
    joined = _clock.now() - timedelta(hours=1)
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


def tick(nodes: int, pools: int) -> dict[str, list[float]]:
    """Milliseconds of CPU for one evaluation of every pool."""
    registry, clock = filled(nodes, pools), _clock
    policy, names = PoolSettings(max=100_000), [f"pool-{number}" for number in range(pools)]
    histories = dict.fromkeys(names, History())
    settle()

    def once() -> None:
        for name in names:
            seen = summarise(registry.nodes(name), pool=name, policy=policy, now=clock.monotonic())
            decision = decide(policy, histories[name], seen, clock.now())
            histories[name] = histories[name].after(decision)
            if decision.code != "BETWEEN_THRESHOLDS" or seen.fresh != nodes // pools:
                raise AssertionError(decision)

    def mean() -> None:
        for name in names:
            total = sum(node.cpu or 0.0 for node in registry.nodes(name))
            if not 0.4 < total / (nodes // pools) < 0.7:
                raise AssertionError(total)

    return in_turns(once, mean)


def in_turns(ours: Callable[[], object], reference: Callable[[], object]) -> dict[str, list[float]]:
    """CPU milliseconds of both, which take turns; the first two of each warm up."""
    runs = [(cpu_ms(reference), cpu_ms(ours)) for _ in range(TIMES + 2)][2:]
    return {"reference": [one for one, _ in runs], "ours": [one for _, one in runs]}


def listing(nodes: int) -> dict[str, list[float]]:
    """Milliseconds for GET /api/v1/nodes when a fifth of the nodes have beaten since the last one."""
    registry = filled(nodes, 1)
    node_ids = [node.node_id for node in registry.nodes()]
    rows = json.loads(b"".join(registry.listing()))
    if len(rows) != nodes or len({row["node_id"] for row in rows}) != nodes:
        raise AssertionError(len(rows))
    settle()
    found: dict[str, list[float]] = {"reference": [], "ours": [], "worst": []}
    for number in range(TIMES):
        found["reference"].append(cpu_ms(lambda: json.dumps(rows)))
        beat(registry, _rng.sample(node_ids, nodes // 5), 2000 + number)
        chunks, took = registry.listing(), []
        while True:
            begin = time.process_time()
            chunk = next(chunks, None)
            took.append((time.process_time() - begin) * 1000)
            if chunk is None:
                break
        found["ours"].append(sum(took))
        found["worst"].append(max(took))
    return found


def memory(nodes: int) -> dict[str, float]:
    """Resident MiB: before, with the fleet, and after somebody has listed it."""
    before = resident_mib()
    registry = filled(nodes, 1)
    settle()
    held = resident_mib()
    for _ in registry.listing():
        pass
    return {"before": before, "mib": held, "listed": resident_mib(), "nodes": len(registry)}


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of this process: other load on the machine does not count."""
    begin = time.process_time()
    work()
    return (time.process_time() - begin) * 1000


def child(what: str, *numbers: int) -> dict[str, Any]:
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


def timed(name: str, target: float, what: str, *numbers: int) -> tuple[list[Row], dict[str, list[float]]]:
    """Its rows, and the calmest of its rounds."""
    rounds = [child(what, *numbers) for _ in range(ROUNDS)]
    calmest = min(rounds, key=lambda one: median(one["reference"]))
    runs = [run for one in rounds for run in one["ours"]]
    return [
        Row(name, median(calmest["ours"]), "ms CPU", median(calmest["reference"]), target, "lower"),
        Row("  best run", min(runs), "ms CPU"),
        Row(f"  median of all {len(runs)} runs", median(runs), "ms CPU"),
    ], calmest


def main() -> int:
    """All rows."""
    rows: list[Row] = []
    for nodes, target in ((10_000, 5), (100_000, 60)):
        for pools in (1, 100):
            rows += timed(f"tick, {nodes:,} nodes, {pools} pool{'s'[: pools > 1]}", target, "tick", nodes, pools)[0]
    listed, calmest = timed("list of 10,000 nodes, a fifth changed", 15, "listing", 10_000)
    rows += [*listed, Row("  its largest chunk, worst of the round", max(calmest["worst"]), "ms CPU", None, 8, "lower")]
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
    run: dict[str, Callable[..., dict[str, Any]]] = {"tick": tick, "listing": listing, "memory": memory}
    print(json.dumps(run[sys.argv[1]](*map(int, sys.argv[2:]))))
