"""Real nats-servers, and one backend interface over them and the fakes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from secbeat.bus import Bus, NodeCredentials, Timing, connect
from secbeat.bus.server import NatsServer
from secbeat.settings import NatsSettings
from secbeat.testing import (
    Leadership,
    MemoryBucket,
    MemoryLease,
    MemoryLedger,
    MemoryMessaging,
    MemoryQueue,
)

# pytest-asyncio would else ask Python 3.11 for a loop that nobody closes.
asyncio.set_event_loop(None)

FAST = Timing(ping=0.3, pings=1, stuck=0.6, reconnect_min=0.02, reconnect_max=0.1, call=1.0)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """The embedded server with logins."""
    started = NatsServer(tmp_path / "nats", port=0)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def open_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server that lets everybody in, as the guide's."""
    started = NatsServer(tmp_path / "open", port=0, open_access=True)
    await started.start()
    yield started
    await started.stop()


class Connecting:
    """Makes connections and closes them at the end."""

    def __init__(self) -> None:
        self.buses: list[Bus] = []

    async def __call__(self, server: NatsServer, role: str | None = "orchestrator", **options: object) -> Bus:
        creds = None
        if role is not None and server.identity is not None and "credentials" not in options:
            creds = server.identity.creds_file(role)
        settings = NatsSettings(url=server.url, creds_file=creds)
        options.setdefault("timing", FAST)
        bus = await connect(settings, name=role or "test", **options)
        self.buses.append(bus)
        return bus

    async def node(self, server: NatsServer, credentials: NodeCredentials, **options: object) -> Bus:
        return await self(server, role=None, jetstream=False, credentials=credentials, **options)


@pytest.fixture
async def bus_to() -> AsyncIterator[Connecting]:
    connecting = Connecting()
    yield connecting
    for bus in connecting.buses:
        await bus.close()


class MemoryBackend:
    """The fakes of ``secbeat.testing``."""

    def __init__(self) -> None:
        self._bucket = MemoryBucket()
        self._leadership = Leadership()
        self._messaging = MemoryMessaging()

    async def bucket(self):
        return self._bucket

    async def leader(self):
        """A lease that is held, and a bucket fenced with it; the leader before does not notice."""
        lease = MemoryLease(held=False, leadership=self._leadership)
        lease.acquire(unnoticed=True)
        return lease, self._bucket.fenced(lease)

    async def queue(self):
        return MemoryQueue()

    async def ledger(self):
        return MemoryLedger()

    async def messaging(self):
        return self._messaging.linked()

    async def close(self) -> None:
        pass


class NatsBackend:
    """The real adapter on a real server; each call of ``leader`` and ``messaging`` is a connection of its own."""

    def __init__(self, directory: Path) -> None:
        self._server = NatsServer(directory, port=0, open_access=True)
        self._buses: list[Bus] = []
        self._numbers = itertools.count()

    async def start(self) -> None:
        await self._server.start()

    async def _bus(self) -> Bus:
        bus = await connect(NatsSettings(url=self._server.url), name=f"test-{next(self._numbers)}", timing=FAST)
        self._buses.append(bus)
        return bus

    async def bucket(self):
        return await (await self._bus()).bucket("state")

    async def leader(self):
        bus = await self._bus()
        # The same holder's next process takes over at once; the one before is not asked.
        lease = await bus.lease("same-holder")
        await lease._turn()
        assert lease.held
        return lease, await bus.fenced("state", lease)

    async def queue(self):
        return await (await self._bus()).queue()

    async def ledger(self):
        return await (await self._bus()).ledger()

    async def messaging(self):
        return (await self._bus()).messaging

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close()
        await self._server.stop()


@pytest.fixture(params=["memory", "nats"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MemoryBackend | NatsBackend]:
    if request.param == "memory":
        yield MemoryBackend()
        return
    real = NatsBackend(tmp_path / "nats")
    await real.start()
    yield real
    await real.close()
