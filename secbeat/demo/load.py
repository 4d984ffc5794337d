"""The load of the demo: an open-loop generator behind a health-checking balancer, in a process of its own.

Open loop: a request starts when its time has come, whatever became of the earlier ones, as real clients do; a slow
system meets more and more requests at once instead of a slower generator. It reports the rate that it reached.

Commands come as JSON lines on standard input (``{"rate": 120.0}``), a report leaves as a JSON line every half second
on standard output. End of input ends the generator after its open requests.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

HEALTH_INTERVAL_SECONDS = 0.5
DISCOVERY_INTERVAL_SECONDS = 0.5
REPORT_INTERVAL_SECONDS = 0.5
# A generator that cannot keep up must say so, not eat the machine.
MAX_OPEN_REQUESTS = 2000
SLOW_CLIENTS = 4
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)
_SERVING = frozenset({"active", "draining", "joining"})


@dataclass
class Backend:
    """One node as the balancer sees it."""

    url: str
    listed: bool = True
    healthy: bool = False
    served: int = 0
    last_served: float = 0.0
    first_served: float = 0.0


@dataclass
class Tally:
    """What became of the requests; ``scheduled`` are those that the open loop started."""

    sent: int = 0
    scheduled: int = 0
    ok: int = 0
    failed: int = 0
    unsent: int = 0
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=20))

    def fail(self, sentence: str) -> None:
        """Count a failed request and keep its reason."""
        self.failed += 1
        self.failures.append(f"{time.strftime('%H:%M:%S')} {sentence}")


class Balancer:
    """Round robin over the nodes whose ``/.secbeat/ready`` answers 200: one failed check takes a node out."""

    def __init__(self) -> None:
        self.backends: dict[str, Backend] = {}
        self._turn = 0

    def pick(self) -> Backend | None:
        """The next healthy node, or None."""
        healthy = [backend for backend in self.backends.values() if backend.healthy]
        if not healthy:
            return None
        self._turn += 1
        return healthy[self._turn % len(healthy)]

    def update(self, nodes: list[dict[str, Any]]) -> None:
        """Learn the nodes from ``GET /api/v1/nodes``; a node that is gone stays for its figures."""
        listed = set()
        for node in nodes:
            # Without a name its machine is not reported yet, and the address is only where it registered from.
            if node.get("name") and node.get("address") and node.get("state") in _SERVING:
                url = f"https://{node['address']}:{node['proxy_port']}"
                listed.add(url)
                self.backends.setdefault(url, Backend(url))
        for url, backend in self.backends.items():
            backend.listed = url in listed
            backend.healthy = backend.healthy and backend.listed

    async def check(self, session: aiohttp.ClientSession) -> None:
        """One round of health checks of the listed nodes, all at once.

        A node that is gone is not asked again: its address may be another instance's by now, and answer.
        """
        listed = [backend for backend in self.backends.values() if backend.listed]
        await asyncio.gather(*(self._check(session, backend) for backend in listed))

    async def _check(self, session: aiohttp.ClientSession, backend: Backend) -> None:
        try:
            timeout = aiohttp.ClientTimeout(total=2)
            # A fresh connection each time: a kept one would report what the listener was, not what it is.
            headers = {"Connection": "close"}
            async with session.get(f"{backend.url}/.secbeat/ready", timeout=timeout, headers=headers) as answer:
                backend.healthy = answer.status == 200 and backend.listed
        except (aiohttp.ClientError, TimeoutError, OSError):
            backend.healthy = False


class Generator:
    """Starts requests at the asked rate and keeps a few slow clients busy.

    ``lag`` is the longest time, seconds, by which a request started late: a generator that is starved of CPU sees
    time-outs that are its own.
    """

    def __init__(self, balancer: Balancer, session: aiohttp.ClientSession) -> None:
        self._balancer = balancer
        self._session = session
        self.tally = Tally()
        self.rate = 0.0
        self.lag = 0.0
        self._asked_since = (time.monotonic(), 0)
        self._open: set[asyncio.Task[None]] = set()

    def ask(self, rate: float) -> None:
        """Change the rate, requests per second; the reached rate and the lag count from here."""
        self.rate, self.lag = rate, 0.0
        self._asked_since = (time.monotonic(), self.tally.scheduled)

    def reached(self) -> float:
        """Requests per second started by the clock since the last `ask`; the slow clients come on top."""
        since, before = self._asked_since
        elapsed = time.monotonic() - since
        return (self.tally.scheduled - before) / elapsed if elapsed > 0 else 0.0

    async def run(self) -> None:
        """Until cancelled; then waits for the open requests."""
        slow = [asyncio.create_task(self._slow_client(), name=f"slow-{number}") for number in range(SLOW_CLIENTS)]
        due = time.monotonic()
        try:
            while True:
                if self.rate <= 0:
                    await asyncio.sleep(0.02)
                    due = time.monotonic()
                    continue
                now = time.monotonic()
                self.lag = max(self.lag, now - due)
                while due <= now:
                    self._start()
                    due += 1.0 / self.rate
                await asyncio.sleep(max(0.0, min(due - time.monotonic(), 0.02)))
        finally:
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, *self._open, return_exceptions=True)

    def _start(self) -> None:
        backend = self._balancer.pick()
        if backend is None or len(self._open) >= MAX_OPEN_REQUESTS:
            self.tally.unsent += 1
            return
        self.tally.sent += 1
        self.tally.scheduled += 1
        kind = random.random()  # noqa: S311 - a mix of clients, not a secret
        work = self._one_shot(backend) if kind < 0.1 else self._post(backend) if kind < 0.2 else self._get(backend)
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _get(self, backend: Backend) -> None:
        await self._request(backend, "GET", "/bytes?n=2048", expect=2048)

    async def _one_shot(self, backend: Backend) -> None:
        await self._request(backend, "GET", "/bytes?n=512", expect=512, headers={"Connection": "close"})

    async def _post(self, backend: Backend) -> None:
        await self._request(backend, "POST", "/upload", data=b"x" * 4096)

    async def _slow_client(self) -> None:
        """Slow uploads and slow answers in turn: what a drain must wait for."""
        while True:
            backend = self._balancer.pick()
            if backend is None or self.rate <= 0:
                await asyncio.sleep(0.1)
                continue
            self.tally.sent += 1
            await self._request(backend, "GET", "/slow?ms=1200")
            backend = self._balancer.pick()
            if backend is not None:
                self.tally.sent += 1
                await self._request(backend, "POST", "/upload", data=_trickle())

    async def _request(
        self,
        backend: Backend,
        method: str,
        path: str,
        *,
        expect: int | None = None,
        data: Any = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        try:
            async with self._session.request(method, backend.url + path, data=data, headers=headers) as answer:
                body = await answer.read()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong, a client did not get its answer
            self.tally.fail(f"{method} {backend.url}{path}: {type(error).__name__}: {error}"[:300])
            return
        if answer.status != 200:
            self.tally.fail(f"{method} {backend.url}{path}: status {answer.status}: {body[:80]!r}")
        elif expect is not None and len(body) != expect:
            self.tally.fail(f"{method} {backend.url}{path}: {len(body)} bytes of {expect}")
        else:
            self.tally.ok += 1
            backend.served += 1
            backend.last_served = time.time()
            backend.first_served = backend.first_served or backend.last_served

    def report(self) -> dict[str, Any]:
        """The figures as one JSON object."""
        return {
            "at": time.time(),
            "asked": self.rate,
            "reached": round(self.reached(), 2),
            "lag": round(self.lag, 3),
            "sent": self.tally.sent,
            "ok": self.tally.ok,
            "failed": self.tally.failed,
            "unsent": self.tally.unsent,
            "open": len(self._open),
            "failures": list(self.tally.failures),
            "nodes": {
                backend.url: {
                    "healthy": backend.healthy,
                    "served": backend.served,
                    "first_served": backend.first_served,
                    "last_served": backend.last_served,
                }
                for backend in self._balancer.backends.values()
            },
        }


async def _trickle() -> AsyncIterator[bytes]:
    for _ in range(8):
        yield b"y" * 256
        await asyncio.sleep(0.15)


async def _every(seconds: float, work: Callable[[], Any]) -> None:
    while True:
        await work()
        await asyncio.sleep(seconds)


async def _commands(generator: Generator) -> None:
    """Obey standard input until it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        generator.ask(float(json.loads(line)["rate"]))


async def main(api: str) -> None:
    """Generate until standard input ends."""
    # The nodes of the demo have self-signed certificates, made at their start.
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    connector = aiohttp.TCPConnector(ssl=tls, limit=0, limit_per_host=0, keepalive_timeout=30)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=REQUEST_TIMEOUT) as session,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as api_session,
    ):
        balancer = Balancer()
        generator = Generator(balancer, session)

        async def discover() -> None:
            try:
                async with api_session.get(f"{api}/api/v1/nodes") as answer:
                    balancer.update(await answer.json())
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                return  # the balancer keeps what it knows; the health checks decide

        async def health() -> None:
            await balancer.check(session)

        async def report() -> None:
            print(json.dumps(generator.report()), flush=True)

        helpers = [
            asyncio.create_task(_every(DISCOVERY_INTERVAL_SECONDS, discover)),
            asyncio.create_task(_every(HEALTH_INTERVAL_SECONDS, health)),
            asyncio.create_task(_every(REPORT_INTERVAL_SECONDS, report)),
        ]
        running = asyncio.create_task(generator.run())
        await _commands(generator)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await report()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
