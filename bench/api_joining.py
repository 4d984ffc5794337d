"""Part of the API's bench: registrations at a real orchestrator on a real nats-server that syncs every write.

Rates are per CPU-second of the orchestrator: on a machine that others use as well, the wall clock measures them. Each
node has an address of its own, as real ones do. Meanwhile a node beats, and its heartbeats must not wait.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bench.harness import Row, percentile
from secbeat.auth import TokenBook
from secbeat.bus.identity import new_user_keys
from secbeat.bus.server import NatsServer

NODES, JOINS, AT_ONCE, WARM = 3000, 500, 64, 300
_CONFIG = {"node_type": "mitigation-node", "region": "local", "tags": ["waf"]}
_SETTINGS = """
[orchestrator]
listen_addr = "127.0.0.1:0"
metrics_addr = "127.0.0.1:0"
state_dir = "{state}"
max_open_operations = 10000
max_open_operations_per_pool = 10000
provisioning_webhook_url = "http://127.0.0.1:1/provision"
[pools.default]
min = 0
max = 100000
[nats]
url = "{nats.url}"
creds_file = "{orchestrator}"
issuer_seed_file = "{nats.identity.issuer_seed_file}"
account_file = "{nats.identity.account_file}"
"""


class Load(NamedTuple):
    """Per CPU-second and per second, p99 of a registration and of a heartbeat meanwhile, ms."""

    per_cpu: float
    per_second: float
    p99: float
    heartbeat: float


class Orchestrator(NamedTuple):
    """The process and how to call it."""

    process: psutil.Process
    port: int
    token: str


async def measure() -> list[Row]:
    """Rows of the two forms."""
    with tempfile.TemporaryDirectory() as directory:
        async with _running(Path(directory)) as orchestrator:
            await load(orchestrator, [_original()] * WARM, first=0)
            original = await load(orchestrator, [_original()] * NODES, first=WARM)
            files = [await _join_file(orchestrator) for _ in range(JOINS)]
            joined = await load(orchestrator, [_join(one) for one in files], first=NODES + WARM)
    return [
        Row("registrations, the original's form", original.per_cpu, "1/CPU-s", None, 1000),
        Row("  on this machine meanwhile", original.per_second, "1/s"),
        Row("  p99", original.p99, "ms"),
        Row("  p99 of a heartbeat meanwhile", original.heartbeat, "ms", None, 1000, "lower"),
        Row("registrations with a join secret", joined.per_cpu, "1/CPU-s", None, 200),
        Row("  on this machine meanwhile", joined.per_second, "1/s"),
        Row("  p99", joined.p99, "ms"),
        Row("  p99 of a heartbeat meanwhile", joined.heartbeat, "ms", None, 1000, "lower"),
    ]


async def load(orchestrator: Orchestrator, bodies: Sequence[bytes], *, first: int) -> Load:
    """Send all, ``AT_ONCE`` at a time, each from its own address."""
    left, taken, beats = iter(enumerate(bodies, first)), list[float](), list[float]()
    beating = asyncio.create_task(_beat(orchestrator.port, beats))
    cpu, start = _cpu(orchestrator), time.perf_counter()
    await asyncio.gather(*(_register(orchestrator.port, left, taken) for _ in range(AT_ONCE)))
    wall, cpu = time.perf_counter() - start, _cpu(orchestrator) - cpu
    beating.cancel()
    return Load(
        len(bodies) / cpu, len(bodies) / wall, percentile(taken, 99) * 1000, percentile(beats or [0.0], 99) * 1000
    )


def _cpu(orchestrator: Orchestrator) -> float:
    times = orchestrator.process.cpu_times()
    return float(times.user + times.system)


async def _register(port: int, left: Iterator[tuple[int, bytes]], taken: list[float]) -> None:
    for number, body in left:
        address = f"127.{1 + number // 60_000}.{1 + number // 240 % 250}.{1 + number % 240}"
        start = time.perf_counter()
        status, answer = await _post(port, "/api/v1/nodes/register", body, source=address)
        assert status == 200, answer
        taken.append(time.perf_counter() - start)


async def _beat(port: int, taken: list[float]) -> None:
    _, answer = await _post(port, "/api/v1/nodes/register", _original(), source="127.9.9.9")
    metrics = dict.fromkeys(
        ("packets_per_second", "active_connections", "total_requests", "ddos_blocks", "waf_blocks"), 1
    )
    body = json.dumps(
        {
            "node_id": json.loads(answer)["node_id"],
            "status": "Active",
            "metrics": {**metrics, "cpu_usage": 1.0, "memory_usage": 1.0},
        }
    ).encode()
    while True:
        start = time.perf_counter()
        status, answer = await _post(port, "/api/v1/nodes/heartbeat", body, source="127.9.9.9")
        assert status == 200, answer
        taken.append(time.perf_counter() - start)
        await asyncio.sleep(0.01)


async def _post(
    port: int, path: str, body: bytes, *, source: str = "127.0.0.1", token: str | None = None
) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    login = b"" if token is None else f"authorization: Bearer {token}\r\n".encode()
    head = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n"
    writer.write(head % path.encode() + login + b"content-length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.read(-1)
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def _original() -> bytes:
    return json.dumps({"public_ip": "127.0.0.1", "config": _CONFIG}).encode()


def _join(file: dict[str, Any]) -> bytes:
    _, public = new_user_keys()
    join = {key: file[key] for key in ("node_id", "op_id", "pool", "secret")}
    join |= {"boot_id": str(uuid.uuid4()), "nats_public_key": public}
    return json.dumps({"public_ip": "127.0.0.1", "config": _CONFIG, "join": join}).encode()


async def _join_file(orchestrator: Orchestrator) -> dict[str, Any]:
    status, answer = await _post(orchestrator.port, "/api/v1/pools/default/nodes", b"{}", token=orchestrator.token)
    assert status == 201, answer
    found: dict[str, Any] = json.loads(answer)
    return found


@asynccontextmanager
async def _running(directory: Path) -> AsyncIterator[Orchestrator]:
    nats = NatsServer(directory / "nats", port=0)
    await nats.start()
    assert nats.identity is not None
    state, log = directory / "state", directory / "log"
    token = TokenBook.issue(state / "secrets" / "tokens.json", name="bench", scope="admin")
    config = directory / "secbeat.toml"
    config.write_text(_SETTINGS.format(state=state, nats=nats, orchestrator=nats.identity.creds_file("orchestrator")))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator", "--config", str(config), stdout=output, stderr=output,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while "Listening at" not in (text := log.read_text()):
                assert process.returncode is None, text
                await asyncio.sleep(0.05)
            port = int(text.partition("Listening at http://127.0.0.1:")[2].split(",")[0].split()[0])
            while (await _post(port, "/api/v1/nodes/register", _original()))[0] != 200:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        yield Orchestrator(psutil.Process(process.pid), port, token)
    finally:
        process.terminate()
        await process.wait()
        await nats.stop()
