"""Tear down the machines of unsigned senders, because nobody else will.

The original terminates a node and forgets it; its machine would stay for ever. Our node publishes a last heartbeat,
``Terminating``, whoever its orchestrator is. That, and a management port that answers no more, is taken as the end.
A node that registered with an original orchestrator got its id there, so a last heartbeat may come under an id that
is not ours: it then counts for machines of unsigned senders that were seen alive and whose port is closed now.

A node that dies says nothing. Its orchestrator asks for another one and names the address: with a closed port that is
as good as a farewell, for a machine that stood before it was said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

import msgspec

from provisioner.jobs.store import JobStore
from provisioner.webhook.unsigned import UnsignedIntake
from secbeat import subjects
from secbeat.clock import Clock
from secbeat.errors import SecbeatError
from secbeat.store import Messaging, Unavailable
from secbeat.wire.jobs import JobRecord, Machine, MachineRecord

log = logging.getLogger("provisioner.farewell")

_LOOK_SECONDS = 2.0
_WATCH_SECONDS = 10.0
_CLOSED_LOOKS = 2
_PATIENCE_SECONDS = 120.0
_GIVEN_UP_SECONDS = 600.0
_FINAL = "Terminating"


class _Status(msgspec.Struct):
    status: str = ""


_decode = msgspec.json.Decoder(_Status).decode
Probe = Callable[[Machine], Awaitable[bool]]


async def port_open(machine: Machine) -> bool:
    """Whether something accepts connections at the machine's management port."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(3):
            _, writer = await asyncio.open_connection(machine.address, machine.management_port)
        writer.close()
        return True
    return False


class Farewells:
    """Knows the machines of unsigned senders, listens for their ends, and asks for their teardown."""

    def __init__(
        self,
        *,
        store: JobStore,
        intake: UnsignedIntake,
        messaging: Messaging,
        clock: Clock,
        probe: Probe = port_open,
    ) -> None:
        self._store, self._intake, self._messaging, self._clock = store, intake, messaging, clock
        self._probe = probe
        self._machines: dict[str, MachineRecord] = {}
        self._signed: set[str] = set()
        self._seen_alive: set[str] = set()
        self._ending: dict[str, float] = {}
        self._strangers: list[float] = []
        self._given_up: dict[str, tuple[datetime, float]] = {}

    def given_up(self, address: str) -> None:
        """An orchestrator holds the node at this address for dead."""
        self._given_up[address] = (self._clock.now(), self._clock.monotonic())

    async def run(self) -> None:
        """Listen and look until cancelled."""
        await self._reload()
        subscription = await self._messaging.subscribe(subjects.HEARTBEATS, self._on_heartbeat)
        try:
            await self._watch()
            since = self._clock.monotonic()
            while True:
                await self._clock.sleep(_LOOK_SECONDS)
                if self._clock.monotonic() - since >= _WATCH_SECONDS:
                    since = self._clock.monotonic()
                    await self._reload()
                    await self._watch()
                await self._look()
        finally:
            await subscription.close()

    async def job_ended(self, job: JobRecord) -> None:
        """A create of an unsigned sender that failed may have left something: nobody else asks for its removal."""
        if job.signed or job.action != "create":
            return
        machine = await self._store.machine(job.node_id)
        if machine is None:
            return
        if job.state == "succeeded":
            self._machines[job.node_id] = machine
            # Now, not at the next look: a node may be told to go within seconds.
            await self._notice(machine)
        else:
            await self._tear_down(machine)

    def _on_heartbeat(self, subject: str, payload: bytes) -> None:
        if not self._machines:
            return
        node_id = subject.rpartition(".")[2]
        try:
            final = _decode(payload).status == _FINAL
        except msgspec.MsgspecError:
            return
        now = self._clock.monotonic()
        if node_id in self._machines:
            self._seen_alive.add(node_id)
            if final:
                self._ending.setdefault(node_id, now)
        elif final and node_id not in self._signed:
            self._strangers.append(now)

    async def _reload(self) -> None:
        try:
            machines = await self._store.machines()
        except Unavailable as error:
            log.warning("Machines of unsigned senders are not looked at: %s", error)
            return
        self._machines = {one.node_id: one for one in machines if not one.signed and one.machine is not None}
        self._signed = {one.node_id for one in machines if one.signed}
        self._seen_alive &= set(self._machines)
        for record in machines:
            if not record.signed and record.machine is None:
                await self._look_after(record)

    async def _look_after(self, record: MachineRecord) -> None:
        """A machine that never reported itself: if its create has ended, what there is of it goes."""
        try:
            job = await self._store.get(record.op_id)
        except Unavailable:
            return
        if job is None or job.state in {"failed", "cancelled"}:
            await self._tear_down(record)

    async def _watch(self) -> None:
        unseen = set(self._machines) - self._seen_alive
        await asyncio.gather(*(self._notice(self._machines[node_id]) for node_id in unseen))

    async def _notice(self, record: MachineRecord) -> None:
        if record.machine is not None and await self._probe(record.machine):
            self._seen_alive.add(record.node_id)

    async def _look(self) -> None:
        now = self._clock.monotonic()
        self._strangers = [at for at in self._strangers if now - at < _PATIENCE_SECONDS]
        self._ending = {node_id: at for node_id, at in self._ending.items() if node_id in self._machines}
        self._given_up = {key: said for key, said in self._given_up.items() if now - said[1] < _GIVEN_UP_SECONDS}
        named = set(self._ending) | {node_id for node_id, one in self._machines.items() if self._is_given_up(one)}
        for node_id in named | (self._seen_alive & set(self._machines) if self._strangers else set()):
            record = self._machines[node_id]
            if record.machine is not None and await self._closed(record.machine):
                if node_id not in named and self._strangers:
                    self._strangers.pop(0)
                await self._tear_down(record)
                self._forget(node_id)

    def _is_given_up(self, record: MachineRecord) -> bool:
        said = None if record.machine is None else self._given_up.get(record.machine.address)
        return said is not None and record.created_at < said[0]

    async def _closed(self, machine: Machine) -> bool:
        for _ in range(_CLOSED_LOOKS):
            if await self._probe(machine):
                return False
            await self._clock.sleep(_LOOK_SECONDS)
        return True

    def _forget(self, node_id: str) -> None:
        self._machines.pop(node_id, None)
        self._ending.pop(node_id, None)
        self._seen_alive.discard(node_id)

    async def _tear_down(self, machine: MachineRecord) -> None:
        try:
            taken = await self._intake.teardown(machine)
        except (SecbeatError, Unavailable) as error:
            # It is found again at the next reload as long as its record stands.
            log.warning("Machine of node %s is not torn down yet: %s", machine.node_id, error)
            return
        if taken is not None:
            log.info(
                "Node %s of an unsigned sender has ended; job %s removes its machine",
                machine.node_id, taken.job.op_id,
                extra={"action": "farewell", "op_id": taken.job.op_id, "pool": machine.pool},
            )  # fmt: skip
