"""The orchestrator's HTTP API: the original's heartbeats, ten thousand nodes in a list, events, registrations.

The server runs alone on core 0, the load on core 1 (``wrk`` where it is installed, else a small generator of our own,
which measures less than the server can). The references: an aiohttp handler that only answers; for the list, one that
sends as many bytes in as many pieces, ready before the request. Reference and ours take turns.

A busy neighbour slows us down through the caches and the cores that we share with it. So the list is measured in
several rounds, and the figure is **the median of the calmest round: the one whose reference was fastest**, whatever our
own was in it; the best single run and the median of all runs stand beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from aiohttp import web

from bench import api_events, api_joining
from bench.harness import Row, median, percentile, report
from orchestrator.control import Control
from orchestrator.events import EventHub
from orchestrator.fleet import Registry
from orchestrator.http import Audit, build
from orchestrator.memory import settle
from orchestrator.rules import Rules
from secbeat.api import Listener, listen
from secbeat.auth import Principal
from secbeat.clock import SystemClock
from secbeat.testing import MemoryBucket, MemoryLease, MemoryMessaging
from secbeat.wire.nodes import NodeRecord

NODES = 10_000
CONNECTIONS = 64
SECONDS = 2.0
ROUNDS = 3
LISTINGS = 9  # in a round
LISTING_ROUNDS = 5
PATH, LIST = "/api/v1/nodes/heartbeat", "/api/v1/nodes"


def record(number: int) -> NodeRecord:
    """One node of the original's form."""
    now = datetime.now(UTC)
    return NodeRecord(
        node_id=str(uuid.UUID(int=number + 1, version=4)),
        pool="default",
        state="active",
        state_since=now,
        created_at=now,
        registered_at=now,
        legacy=True,
        peer_address="127.0.0.1",
    )


def body(node_id: str, random_: random.Random) -> bytes:
    """A heartbeat as the original's node writes it."""
    metrics = {
        "cpu_usage": random_.uniform(0, 100),
        "memory_usage": random_.uniform(0, 100),
        "packets_per_second": 0,
        "active_connections": random_.randrange(100),
        "total_requests": random_.randrange(10**6),
        "ddos_blocks": 0,
        "waf_blocks": 0,
    }
    return json.dumps({"node_id": node_id, "metrics": metrics, "status": "Active"}, separators=(",", ":")).encode()


# ---------------------------------------------------------------- the server's side


async def ours(registry: Registry, hub: EventHub) -> Listener:
    """The whole application, with every check that production has."""
    clock, lease = SystemClock(), MemoryLease()
    rules = Rules(bucket=MemoryBucket(lease=lease), lease=lease, messaging=MemoryMessaging(), clock=clock)
    app = build(
        control=cast("Control", SimpleNamespace(leader=True, pool=lambda _name: None)),
        registry=registry,
        rules=rules,
        events=hub,
        audit=Audit(clock=clock),
        clock=clock,
        tokens=lambda token: Principal("bench", "read") if token == "bench" else None,  # noqa: S105 - for the readers of events
    )
    return await listen(app, "127.0.0.1:0")


async def bare(pieces: list[bytes]) -> Listener:
    """Two aiohttp handlers: one reads the body and answers, one sends ``pieces``."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_post(PATH, answer)
    app.router.add_get(LIST, send)
    return await listen(app, "127.0.0.1:0")


def fleet() -> Registry:
    """Ten thousand known nodes."""
    registry = Registry(clock=SystemClock(), default_interval=5.0)
    for number in range(NODES):
        registry.put(record(number))
    return registry


async def heartbeats(bare_port: int, our_port: int, counted: Callable[[], int]) -> dict[str, tuple[float, float]]:
    """(answered per CPU-second of this process, p99 in ms) of both, medians of rounds that alternate.

    Every answer must be a 200, and every 200 of ours an applied heartbeat.
    """
    found: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    for _ in range(ROUNDS + 1):
        for name, port in (("bare", bare_port), ("ours", our_port)):
            before, cpu = counted(), time.process_time()
            answered, p99 = await load(port)
            cpu = time.process_time() - cpu
            assert name == "bare" or counted() - before >= answered, (
                f"{answered} answered, {counted() - before} applied"
            )
            found[name].append((answered / cpu, p99))
    return {
        name: (median([rate for rate, _ in rounds[1:]]), median([p99 for _, p99 in rounds[1:]]))
        for name, rounds in found.items()
    }


async def load(port: int) -> tuple[int, float]:
    """Run the generator in a process of its own on another core: (answers, p99 ms)."""
    command = wrk(port) if shutil.which("wrk") else [sys.executable, "-m", "bench.bench_api", "--load", str(port)]
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(cores()[-1]), *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    return read_wrk(output.decode()) if shutil.which("wrk") else tuple(json.loads(output))


def cores() -> list[int]:
    """The cores that the machine lets us use."""
    return sorted(ALL_CORES)


ALL_CORES = os.sched_getaffinity(0)


# ---------------------------------------------------------------- the load's side


def requests() -> list[bytes]:
    """Requests as the original's node sends them: lower-case headers in its order."""
    random_ = random.Random(7)  # noqa: S311 - a load, no secret
    made = []
    for number in random_.sample(range(NODES), 2000):
        text = body(str(uuid.UUID(int=number + 1, version=4)), random_)
        head = f"POST {PATH} HTTP/1.1\r\ncontent-type: application/json\r\naccept: */*\r\nhost: 127.0.0.1:3030\r\n"
        made.append(head.encode() + b"content-length: %d\r\n\r\n" % len(text) + text)
    return made


class Client(asyncio.Protocol):
    """One keep-alive connection that sends the next request when the last one was answered."""

    def __init__(self, made: list[bytes], started: list[float], taken: list[float]) -> None:
        self.made, self.started, self.taken = made, started, taken
        self.number = random.randrange(len(made))  # noqa: S311 - a load, no secret
        self.buffer = b""
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.send()

    def send(self) -> None:
        self.number = (self.number + 1) % len(self.made)
        self.sent = time.perf_counter()
        self.transport.write(self.made[self.number])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.buffer.endswith(b"\r\n\r\n"):
            assert self.buffer.startswith(b"HTTP/1.1 200 "), self.buffer
            self.buffer = b""
            self.taken.append(time.perf_counter() - self.sent)
            self.send()


async def generate(port: int) -> tuple[int, float]:
    """Load for a while: (answers, p99 ms)."""
    loop = asyncio.get_running_loop()
    failed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: failed.append(context))
    taken: list[float] = []
    made = requests()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Client(made, [], taken), "127.0.0.1", port)
    await asyncio.sleep(SECONDS)
    assert not failed, failed[0]
    return len(taken), percentile(taken, 99) * 1000


def wrk(port: int) -> list[str]:
    """The command of ``wrk`` with the same requests."""
    lines = [json.dumps(made.partition(b"\r\n\r\n")[2].decode()) for made in requests()]
    script = Path(tempfile.gettempdir()) / f"secbeat-bench-{os.getpid()}.lua"
    script.write_text(
        "local b={"
        + ",".join(lines)
        + '}\nlocal n=0\nwrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\n'
        "request=function() n=n%#b+1 return wrk.format(nil,nil,nil,b[n]) end\n"
        'done=function(s,l,r) io.write("DONE ",s.requests," ",l:percentile(99)," ",s.errors.status,"\\n") end\n'
    )
    return ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS:.0f}s", "-s", str(script), f"http://127.0.0.1:{port}{PATH}"]


def read_wrk(output: str) -> tuple[int, float]:
    """What the script's last line says."""
    found = re.search(r"DONE (\d+) ([\d.]+) (\d+)", output)
    assert found is not None, output
    assert found[3] == "0", output
    return int(found[1]), float(found[2]) / 1000


# ---------------------------------------------------------------- the list


class Stalls:
    """The longest time, beyond the millisecond that it asks for, in which the loop did not come round."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """Come round every millisecond, for as long as one is let."""
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - asked - 0.001)


class Round(NamedTuple):
    """Milliseconds of the list's runs: until the client has it all, CPU time of the server, longest stall."""

    reference: list[float]
    ours: list[float]
    cpu: list[float]
    stalls: list[float]


async def listing(registry: Registry, listener: Listener, reference: Listener, random_: random.Random) -> Round:
    """One round; both servers run in this process."""
    found = Round([], [], [], [])
    for _ in range(LISTINGS):
        found.reference.append((await fetched(reference))[0])
        change(registry, random_)
        wall, cpu, stall = await fetched(listener)
        found.ours.append(wall)
        found.cpu.append(cpu)
        found.stalls.append(stall)
    return found


async def fetched(listener: Listener) -> tuple[float, float, float]:
    """Wall, CPU time and longest stall while a client on the other core reads the list."""
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(cores()[-1]), sys.executable, "-m", "bench.bench_api", "--get", str(listener.port),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert process.stdout is not None
    await process.stdout.readline()
    watch = Stalls()
    task = asyncio.create_task(watch.watch())
    await asyncio.sleep(0.01)
    watch.longest, cpu = 0.0, time.process_time()
    output, _ = await process.communicate(b"go\n")
    cpu = time.process_time() - cpu
    task.cancel()
    seconds, length = json.loads(output)
    assert length == NODES
    return seconds * 1000, cpu * 1000, watch.longest * 1000


def change(registry: Registry, random_: random.Random) -> None:
    """A fifth of the fleet sends a heartbeat."""
    from secbeat.wire.heartbeat import LegacyHeartbeat  # noqa: PLC0415 - the load's process does not need it

    for number in random_.sample(range(NODES), NODES // 5):
        node_id = str(uuid.UUID(int=number + 1, version=4))
        registry.on_legacy(LegacyHeartbeat.decode(body(node_id, random_)), unit="percent")


def get(port: int) -> tuple[float, int]:
    """One GET of the list, when told: (seconds, nodes in it). A raw socket: parsing is no part of the figure."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        print("ready", flush=True)
        sys.stdin.readline()
        start = time.perf_counter()
        connection.sendall(b"GET /api/v1/nodes HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        parts = []
        while part := connection.recv(1 << 20):
            parts.append(part)
        seconds = time.perf_counter() - start
    answer = b"".join(parts)
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    return seconds, answer.count(b'"node_id":')


async def measure() -> list[Row]:
    """All rows."""
    registry, random_ = fleet(), random.Random(7)  # noqa: S311 - a load, no secret
    change(registry, random_)
    pieces = list(registry.listing())
    settle()
    hub = EventHub(SystemClock())
    reference, listener = await bare(pieces), await ours(registry, hub)
    rates = await heartbeats(reference.port, listener.port, lambda: registry.counters["received"])
    (bare_rate, bare_p99), (rate, p99) = rates["bare"], rates["ours"]
    counters = registry.counters
    assert counters["unknown"] == counters["malformed"] == 0, counters
    await listing(registry, listener, reference, random_)  # warms up
    rounds = [await listing(registry, listener, reference, random_) for _ in range(LISTING_ROUNDS)]
    parts = await pages(listener)
    streams = await api_events.measure(listener, hub, cores()[-1])
    await reference.close()
    await listener.close()
    os.sched_setaffinity(0, ALL_CORES)
    joining = await api_joining.measure()
    return [
        Row("HTTP heartbeats applied, 10,000 nodes", rate, "1/CPU-s", bare_rate, 15_000),
        Row("HTTP heartbeat at saturation, p99", p99, "ms", bare_p99),
        *listing_rows(rounds),
        *parts,
        *streams,
        *joining,
    ]


async def pages(listener: Listener) -> list[Row]:
    """CPU time of the server for one page in the middle of the list, whole and filtered, client included."""
    rows = []
    middle = str(uuid.UUID(int=NODES // 2, version=4))
    for name, query in (("limit=100", f"limit=100&after={middle}"), ("limit=1000", f"limit=1000&after={middle}"),
                        ("one state, none in it", "state=failed")):  # fmt: skip
        taken = []
        for _ in range(LISTINGS * 3):
            cpu = time.process_time()
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(f"GET {LIST}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            assert (await reader.read(-1)).startswith(b"HTTP/1.1 200 ")
            writer.close()
            taken.append(time.process_time() - cpu)
        rows.append(Row(f"GET /api/v1/nodes, {name}: CPU time", median(taken) * 1000, "ms", None, 10, "lower"))
    return rows


def listing_rows(rounds: list[Round]) -> list[Row]:
    """What the rounds of the list say."""
    calmest = min(rounds, key=lambda one: median(one.reference))
    ours = [run for one in rounds for run in one.ours]
    stalls = [run for one in rounds for run in one.stalls]
    return [
        Row("GET /api/v1/nodes, 10,000 nodes, a fifth changed", median(calmest.ours), "ms", median(calmest.reference),
            15, "lower"),
        Row("  best run", min(ours), "ms"),
        Row(f"  median of all {len(ours)} runs", median(ours), "ms",
            median([run for one in rounds for run in one.reference])),
        Row("  p99 of all runs", percentile(ours, 99), "ms"),
        Row("  CPU time of the server", median(calmest.cpu), "ms"),
        Row("  longest stall of the loop, median", median(calmest.stalls), "ms", None, 8, "lower"),
        Row("  median of all stalls", median(stalls), "ms"),
        Row("  worst stall of all", max(stalls), "ms"),
    ]  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure, or be one of the two clients."""
    if arguments[:1] == ["--load"]:
        print(json.dumps(asyncio.run(generate(int(arguments[1])))))
        return 0
    if arguments[:1] == ["--get"]:
        print(json.dumps(get(int(arguments[1]))))
        return 0
    os.sched_setaffinity(0, {cores()[0]})
    return report("api", asyncio.run(measure()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
