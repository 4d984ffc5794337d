"""Our node with the driver `haproxy` beside bare HAProxy: same program, certificate, ciphers, request, one core.

The bare one does the least that terminates TLS and forwards the same request: no limits, hop-by-hop hygiene, retries,
blocklist, drain or measurements. On a machine that does other things too, CPU per request says more than requests per
second: the inverse of its ratio is what a core of its own would serve.
Responses of 1 KiB come from a third HAProxy; it and wrk share the other core.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

from bench.harness import Row, median, pinned, report, resident_mib
from node.dataplane.builtin.tls import own_certificate
from node.dataplane.haproxy.config import CIPHERS
from node.dataplane.haproxy.runtime import Place, Runtime, RuntimeFailed
from secbeat.api import listen

_ROUNDS, _SECONDS = 3, 4
_PROXY_CORE, _LOAD_CORE = 0, 1
_BARE = """
global
    maxconn 4000
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    ssl-default-bind-ciphers {ciphers}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend main
    bind 127.0.0.1:{port} ssl crt {pem} curves X25519:P-256:P-384 alpn h2,http/1.1
    # The request that reaches the origin is the same as ours.
    http-request set-header x-forwarded-for %[src]
    http-request set-header x-forwarded-proto https
    http-request set-header x-forwarded-host %[req.hdr(host)]
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin}
"""
_ORIGIN = """
global
    maxconn 8000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend main
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string {body}
"""
_NODE = """
[node]
driver = "haproxy"
haproxy = "{haproxy}"
haproxy_retry = {retry}
state_dir = "{state}"
server_url = "{server}"
listen_addr = "127.0.0.1:{port}"
metrics_addr = "127.0.0.1:0"
backend = "http://127.0.0.1:{origin}"
max_connections = 4000
register_jitter_seconds = 0
propagation_seconds = 0
[node.tls]
cert_file = "{cert}"
key_file = "{key}"
[management]
listen_addr = "127.0.0.1:0"
auth_token = "0123456789abcdef-for-the-bench"
[nats]
url = "nats://127.0.0.1:1"
"""


@dataclass(frozen=True)
class Run:
    """One wrk: requests per second, p99 in milliseconds, CPU milliseconds of the proxy per 1,000 requests."""

    rps: float
    p99: float
    cpu: float


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise SystemExit(f"bench proxy needs {name}: run scripts/haproxy.sh")
    return found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _start(core: int, *command: str, directory: Path) -> subprocess.Popen[bytes]:
    with pinned(core):
        return subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def _listening(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def _cpu(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


async def _wrk(port: int, pids: list[int], *, fresh: bool) -> Run:
    options = ["-H", "Connection: close"] if fresh else []
    before = _cpu(pids)
    with pinned(_LOAD_CORE):
        process = await asyncio.create_subprocess_exec(
            _program("wrk"), "-t1", "-c32", f"-d{_SECONDS}s", "--latency", *options, f"https://127.0.0.1:{port}/",
            stdout=subprocess.PIPE,
        )  # fmt: skip
    output = (await process.communicate())[0].decode()
    assert "Non-2xx" not in output, output
    if not fresh:
        assert "Socket errors" not in output, output
    count = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    rps = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])  # type: ignore[index]
    p99 = _milliseconds(re.search(r"99%\s+(\S+)", output)[1])  # type: ignore[index]
    return Run(rps, p99, (_cpu(pids) - before) * 1e6 / count)


def _orchestrator(blocked: int) -> web.Application:
    """As much of an orchestrator as a node needs."""
    end = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    rules = [
        {"ip": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", "reason": "bench", "expires_at": end} for n in range(blocked)
    ]

    async def register(_request: web.Request) -> web.Response:
        return web.json_response(
            {
                "node_id": "5b0c1f0a-7f0a-4b1e-9a51-0d7c1f3f2a11",
                "heartbeat_interval": 1,
                "endpoints": {"heartbeat_url": "http://127.0.0.1/h", "control_url": "http://127.0.0.1/c"},
            }
        )

    async def heartbeat(_request: web.Request) -> web.Response:
        return web.Response()

    async def snapshot(request: web.Request) -> web.Response:
        first = "since" not in request.query
        return web.json_response({"v": 1, "version": 1, "complete": first, "blocked": rules if first else []})

    app = web.Application()
    app.router.add_post("/api/v1/nodes/register", register)
    app.router.add_post("/api/v1/nodes/heartbeat", heartbeat)
    app.router.add_get("/api/v1/rules/snapshot", snapshot)
    return app


@dataclass(frozen=True)
class Node:
    """A running node: its port, the agent, HAProxy's processes."""

    port: int
    agent: int
    proxy: list[int]


async def _blocking(directory: Path, entries: int) -> None:
    """Wait until the blocklist is in force."""
    place, found = Place(directory), -1
    try:
        async with asyncio.timeout(60):
            while found != entries:
                await asyncio.sleep(0.2)
                with suppress(RuntimeFailed):
                    found = (await Runtime(place).ask("@1 show map blocklist.map")).count("/32 1")
    finally:
        place.close()
    await asyncio.sleep(2.0)


@asynccontextmanager
async def _node(directory: Path, tls: Any, origin: int, *, blocked: int = 0, retry: bool = True) -> AsyncIterator[Node]:
    server = await listen(_orchestrator(blocked), "127.0.0.1:0")
    port, state = _free_port(), directory / f"node-{blocked}-{retry}"
    state.mkdir()
    config = state / "node.toml"
    config.write_text(
        _NODE.format(
            haproxy=_program("haproxy"), state=state / "state", server=server.url, port=port, origin=origin,
            cert=tls.cert_file, key=tls.key_file, retry=str(retry).lower(),
        )
    )  # fmt: skip
    agent = _start(_PROXY_CORE, sys.executable, "-m", "node", "--config", str(config), directory=Path.cwd())
    try:
        await _listening(port)
        await _blocking(state / "state" / "haproxy", blocked)
        yield Node(port, agent.pid, [child.pid for child in psutil.Process(agent.pid).children(recursive=True)])
    finally:
        agent.terminate()
        agent.wait()
        await server.close()


async def _measure(directory: Path) -> list[Row]:
    haproxy = _program("haproxy")
    tls = own_certificate(directory / "tls", ["127.0.0.1"], datetime.now(UTC))
    assert tls.cert_file is not None
    assert tls.key_file is not None
    pem = directory / "bare.pem"
    pem.write_text(tls.cert_file.read_text() + tls.key_file.read_text())
    origin, bare = _free_port(), _free_port()
    (directory / "origin.cfg").write_text(_ORIGIN.format(port=origin, body="x" * 1024))
    (directory / "bare.cfg").write_text(_BARE.format(port=bare, origin=origin, pem=pem, ciphers=CIPHERS))
    started = [
        _start(_LOAD_CORE, haproxy, "-db", "-f", "origin.cfg", directory=directory),
        _start(_PROXY_CORE, haproxy, "-db", "-f", "bare.cfg", directory=directory),
    ]
    try:
        await asyncio.gather(_listening(origin), _listening(bare))
        rows = []
        async with _node(directory, tls, origin) as node:
            for fresh in (False, True):
                rows += await _compare(node, bare, started[1].pid, fresh=fresh)
            rows.append(Row("agent's resident memory", resident_mib(node.agent), "MiB", target=75, better="lower"))
        async with _node(directory, tls, origin, blocked=100_000) as node:
            name = "agent's resident memory, 100,000 blocked addresses"
            rows.append(Row(name, resident_mib(node.agent), "MiB", target=90, better="lower"))
            rows += await _beside("with 100,000 blocked addresses", node, bare, started[1].pid)
        async with _node(directory, tls, origin, retry=False) as node:
            rows += await _beside("with haproxy_retry = false", node, bare, started[1].pid)
        return rows
    finally:
        for process in started:
            process.terminate()
            process.wait()


async def _rounds(node: Node, bare: int, bare_pid: int, *, fresh: bool) -> tuple[list[Run], list[Run], float]:
    """Turn by turn; the last figure is the agent's CPU, in cores, while its proxy is under load."""
    ours, theirs = [], []
    spent = seconds = 0.0
    for _ in range(_ROUNDS):
        theirs.append(await _wrk(bare, [bare_pid], fresh=fresh))
        before, began = _cpu([node.agent]), time.monotonic()
        ours.append(await _wrk(node.port, node.proxy, fresh=fresh))
        spent += _cpu([node.agent]) - before
        seconds += time.monotonic() - began
    return ours, theirs, spent / seconds


def _middle(runs: list[Run], figure: str) -> float:
    return median([getattr(run, figure) for run in runs])


async def _compare(node: Node, bare: int, bare_pid: int, *, fresh: bool) -> list[Row]:
    ours, theirs, agent = await _rounds(node, bare, bare_pid, fresh=fresh)
    kind = "new TLS connection per request" if fresh else "TLS keep-alive"
    rows = [
        Row(kind, _middle(ours, "rps"), "requests/s", _middle(theirs, "rps"), target=0.95, of="ratio"),
        Row(
            f"{kind}: p99", _middle(ours, "p99"), "ms", _middle(theirs, "p99"),
            target=None if fresh else 1.10, better="lower", of="ratio",
        ),
        Row(f"{kind}: proxy's CPU", _middle(ours, "cpu"), "ms per 1,000", _middle(theirs, "cpu"), better="lower"),
    ]  # fmt: skip
    if not fresh:
        rows.append(Row("agent's CPU under full load", agent * 100, "% of a core", target=2, better="lower"))
    return rows


async def _beside(what: str, node: Node, bare: int, bare_pid: int) -> list[Row]:
    ours, theirs, _ = await _rounds(node, bare, bare_pid, fresh=False)
    return [
        Row(f"{what}: TLS keep-alive", _middle(ours, "rps"), "requests/s", _middle(theirs, "rps")),
        Row(f"{what}: proxy's CPU", _middle(ours, "cpu"), "ms per 1,000", _middle(theirs, "cpu"), better="lower"),
    ]


def main() -> int:
    """Measure and report."""
    with tempfile.TemporaryDirectory(prefix="secbeat-bench-") as directory:
        return report("proxy", asyncio.run(_measure(Path(directory))))


if __name__ == "__main__":
    sys.exit(main())
