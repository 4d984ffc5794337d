"""Our node's agent and management API, in the original's form: virtual time, real sockets, a data plane in memory."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node import management
from node.agent import Agent
from node.commands import Commands
from node.dataplane import Quantiles, Totals
from node.drain import Drain
from node.heartbeats import Beats
from node.identity import IdentityStore
from node.link import Link
from node.load import Sampler
from node.load.cpu import Reading
from node.membership import Membership
from node.rules import RulesFollower
from secbeat.api import listen
from secbeat.service import Stop, Tasks
from secbeat.settings import NodeSettings
from secbeat.testing import FakeClock, MemoryMessaging
from secbeat.wire.registration import Listening
from tests.contract import raw
from tests.contract.original.programs import TOKEN
from tests.contract.raw import Message
from tests.contract.waiting import pass_time


class Plane:
    """A DataPlane that serves nobody."""

    def __init__(self) -> None:
        self.port, self.in_flight, self.draining = 8443, 0, False
        self.totals = Totals()
        self.closed = False
        self.blocklists: list[Any] = []

    async def start(self) -> None: ...

    def begin_drain(self) -> None:
        self.draining = True

    def cancel_drain(self) -> None:
        self.draining = False

    async def close_listener(self) -> None:
        self.closed = True

    async def settle(self, seconds: float) -> int:
        return self.in_flight

    async def end(self) -> None: ...

    def stats(self) -> Totals:
        return self.totals

    def take_latency(self) -> Quantiles:
        return Quantiles()

    def configure(self, settings: NodeSettings) -> None: ...

    def set_blocklist(self, blocklist: Any) -> None:
        self.blocklists.append(blocklist)


class Meter:
    """One core of two in use."""

    def read(self, wall: float) -> Reading:
        return Reading(wall / 2, wall)


class _Bus:
    def __init__(self, messaging: MemoryMessaging) -> None:
        self.messaging = messaging

    async def close(self) -> None: ...


class OurNode:
    """``ask`` speaks to its management port."""

    @classmethod
    async def start(cls, directory: Path, clock: FakeClock, **options: Any) -> OurNode:
        made = cls(directory, clock, **options)
        made._listener = await listen(management.build(made.facts, lambda: made.token), "127.0.0.1:0")
        return made

    def __init__(
        self, directory: Path, clock: FakeClock, *, server_url: str = "http://127.0.0.1:9", **settings: Any
    ) -> None:
        self.clock, self.plane, self.token = clock, Plane(), TOKEN
        self.exchange: list[Any] = []
        self.messaging = MemoryMessaging(self.exchange)
        boot_id, store = str(uuid.uuid4()), IdentityStore(directory / "node")
        configured = NodeSettings(server_url=server_url, register_jitter_seconds=0, **settings)
        self.drain = Drain(
            self.plane, clock, boot_id=boot_id, record_file=directory / "drain.json", longest=60.0, propagation=10.0,
            on_change=self._poke,
        )  # fmt: skip
        self.membership = Membership(configured, store, clock, boot_id=boot_id, listening=Listening)
        self.membership.prepare()
        commands = Commands(self.drain, store, boot_id=boot_id, member=lambda: self.membership.member)
        sampler = Sampler(self.plane, Meter(), clock)
        self.facts = management.Facts(
            commands=commands, drain=self.drain, plane=self.plane, sampler=sampler,
            member=lambda: self.membership.member, boot_id=boot_id, clock=clock, started=clock.monotonic(),
            allow_legacy_terminate=False,
        )  # fmt: skip
        self.agent = Agent(
            membership=self.membership,
            link=Link(self._connect, clock),
            rules=RulesFollower(
                self.plane, clock, source=lambda: self.membership.orchestrator, token=lambda: None
            ),
            beats=Beats(boot_id, clock), sampler=sampler, plane=self.plane, drain=self.drain, clock=clock,
        )  # fmt: skip
        self._stop = Stop()
        self._tasks = Tasks(self._stop)
        self._running: list[asyncio.Task[Any]] = []

    def _poke(self) -> None:
        self.agent.poke()

    async def _connect(self, on_closed: Callable[[], None]) -> _Bus:
        del on_closed
        return _Bus(self.messaging)

    @property
    def port(self) -> int:
        return self._listener.port

    def run(self) -> None:
        """The agent begins: it registers and reports."""
        self._running.append(asyncio.ensure_future(self.agent.run(self._tasks)))
        self._running.append(asyncio.ensure_future(self.drain.run()))

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._tasks.close()
        await self.membership.orchestrator.close()
        await self._listener.close()

    # -------------------------------------------------------------- what a test does

    async def ask(self, sent: bytes | Message) -> Message:
        """One request to the management port."""
        return await raw.ask(self.port, sent)

    async def until(self, condition: Callable[[], Any], *, seconds: float = 120.0, step: float = 0.5) -> None:
        """Let virtual time pass until ``condition``, but not while a request to the orchestrator is under way."""
        orchestrator = self.membership.orchestrator
        await pass_time(self.clock, condition, sessions=lambda: [orchestrator._session], seconds=seconds, step=step)
