"""Fakes of what the core acts on, and a whole core in memory: for tests and simulations.

``World`` is one cluster on a FakeClock: a receiver of webhooks with machines and job records, nodes that join, beat and
drain, and a core that can be killed at any moment and started anew on the same stored records.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Self

from pydantic import SecretStr

from orchestrator.core import Core, Stores
from orchestrator.events import EventHub
from orchestrator.fleet.registry import Registry
from orchestrator.joining.credentials import CredentialIssuer, NodeTokens
from orchestrator.metrics import Metrics
from orchestrator.operations.management import Reply, Target
from orchestrator.operations.webhook import Delivery
from secbeat import ids, subjects
from secbeat.clock import wire_time
from secbeat.settings import NatsSettings, Settings
from secbeat.testing import FakeClock, Leadership, MemoryBucket, MemoryLease, MemoryLedger, MemoryMessaging, settle
from secbeat.wire.control import ResumeRequest, TerminateRequest
from secbeat.wire.events import AuditEvent
from secbeat.wire.heartbeat import HeartbeatFrame, MetricsFrame, encode_frame
from secbeat.wire.jobs import JobError, JobRecord, JobState, Machine
from secbeat.wire.registration import Join, RegisterRequest

Manner = Literal["tracked", "untracked", "unreachable", "timeout", "busy", "refused", "superseded", "lost_answer"]
REGISTRATION = {"public_ip": "127.0.0.1", "config": {"node_type": "mitigation-node", "region": None, "tags": []}}


_ANSWERS: dict[str, Delivery] = {
    "refused": Delivery(outcome="refused", arrived=True, status=422, code="WEBHOOK_REFUSED", sentence="422: no"),
    "busy": Delivery(outcome="retry", arrived=True, status=503, code="WEBHOOK_BUSY", sentence="503", retry_after=7.0),
    "timeout": Delivery(outcome="retry", arrived=True, code="WEBHOOK_TIMEOUT", sentence="no answer within 15 s"),
    "superseded": Delivery(
        outcome="superseded", arrived=True, status=409, code="EPOCH_SUPERSEDED", sentence="409", seen_epoch=9
    ),
}


@dataclass
class Call:
    """One webhook as it arrived."""

    url: str
    op_id: str
    body: dict[str, Any]


class FakeReceiver:
    """A receiver of webhooks with a provisioner's job records, or without (``untracked``).

    Attributes:
        manner: how it answers from now on; ``hold`` is waited for first, when set.
        calls: every request that arrived.
        machines: op_ids by the node that a create made; a machine leaves when its destroy is carried out.
        automatic: carry jobs out at once; else ``finish`` does.
    """

    def __init__(self, clock: FakeClock, jobs: MemoryBucket, messaging: MemoryMessaging) -> None:
        self._clock, self._jobs, self._messaging = clock, jobs, messaging
        self.manner: Manner = "tracked"
        self.hold: asyncio.Event | None = None
        self.calls: list[Call] = []
        self.machines: dict[str, list[str]] = {}
        self.automatic = True
        self.on_created: Callable[[str], None] = lambda _op_id: None
        self.on_destroyed: Callable[[str], None] = lambda _node_id: None
        self._records: dict[str, JobRecord] = {}

    async def send(self, url: str, *, op_id: str, body: bytes, traceparent: str | None = None) -> Delivery:
        """As the Protocol has it."""
        del traceparent
        if self.hold is not None:
            await self.hold.wait()
        if self.manner == "unreachable":
            return Delivery(outcome="retry", arrived=False, code="WEBHOOK_UNREACHABLE", sentence="connection refused")
        self.calls.append(Call(url, op_id, json.loads(body)))
        if self.manner in _ANSWERS:
            return _ANSWERS[self.manner]
        tracked = self.manner != "untracked"
        await self._accept(self.calls[-1].body["operation"], tracked=tracked)
        if self.manner == "lost_answer":
            return Delivery(outcome="retry", arrived=True, code="WEBHOOK_TIMEOUT", sentence="the answer got lost")
        return Delivery(outcome="tracked" if tracked else "untracked", arrived=True, status=202 if tracked else 200)

    async def _accept(self, operation: dict[str, Any], *, tracked: bool) -> None:
        op_id = operation["op_id"]
        if tracked and op_id in self._records:
            return
        if not tracked:
            self.machines.setdefault(operation["node_id"], []).append(op_id)
            return
        fields = {name: operation[name] for name in ("op_id", "cluster_id", "action", "pool", "node_id", "epoch")}
        record = JobRecord(**fields, created_at=self._clock.now(), deadline=operation["deadline"])
        await self._write(record)
        if self.automatic:
            await self.finish(op_id)

    async def finish(self, op_id: str, state: JobState = "succeeded", *, error: JobError | None = None) -> None:
        """End a job: the machine comes or goes, the record says so, a hint is sent."""
        record, now = self._records[op_id], self._clock.now()
        changes: dict[str, Any] = {"state": state, "started_at": now, "finished_at": now, "error": error}
        if state == "succeeded" and record.action == "create":
            self.machines.setdefault(record.node_id, []).append(op_id)
            name = ids.machine_name(record.pool, record.node_id)
            changes["machine"] = Machine(id=name, name=name, address="127.0.1.10")
        if state == "succeeded" and record.action == "destroy":
            self.machines.pop(record.node_id, None)
        await self._write(record.model_copy(update=changes))
        if state == "succeeded":
            (self.on_created if record.action == "create" else self.on_destroyed)(
                op_id if record.action == "create" else record.node_id
            )

    async def _write(self, record: JobRecord) -> None:
        self._records[record.op_id] = record
        await self._jobs.put(f"job.{record.op_id}", record.encode())
        await self._messaging.publish(subjects.job_hint(record.op_id), b"{}")

    def called(self, end: str = "") -> list[str]:
        """The op_ids of the requests whose URL ends so, in order."""
        return [call.op_id for call in self.calls if call.url.endswith(end)]


@dataclass
class FakeNode:
    """One node process."""

    node_id: str
    boot_id: str
    pool: str
    seq: int = 0
    status: str = "Active"
    cpu: float = 0.5
    connections: int = 0
    alive: bool = True
    beating: bool = True
    drained_by: str | None = None
    drain_seconds: float = 3.0


class FakeNodes:
    """All node processes, and the calls on them. ``deaf``: node_ids that refuse or do not answer."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.all: dict[str, FakeNode] = {}
        self.terminated: list[tuple[str, TerminateRequest]] = []
        self.resumed: list[str] = []
        self.unreachable: set[str] = set()
        self.closed_listener: set[str] = set()
        self.on_terminate: Callable[[FakeNode], None] = lambda _node: None

    async def terminate(self, target: Target, request: TerminateRequest) -> Reply:
        self.terminated.append((target.node_id, request))
        node = self.all.get(target.node_id)
        if node is None or not node.alive or target.node_id in self.unreachable:
            return Reply("unreachable", "connection refused")
        if node.status == "Active":
            node.status = "Draining"
            self.on_terminate(node)
        return Reply("accepted", grace_seconds=float(request.grace_period_seconds))

    async def resume(self, target: Target, request: ResumeRequest) -> Reply:
        del request
        node = self.all.get(target.node_id)
        if node is None or not node.alive:
            return Reply("unreachable", "connection refused")
        if target.node_id in self.closed_listener:
            return Reply("refused", "409")
        self.resumed.append(target.node_id)
        node.status = "Active"
        return Reply("accepted")

    async def answers(self, target: Target) -> bool:
        return await self.listens(target)

    async def listens(self, target: Target) -> bool:
        node = self.all.get(target.node_id)
        return node is not None and node.alive and target.node_id not in self.unreachable


@dataclass
class World:
    """A cluster. ``boot`` starts a core on what is stored, ``kill`` ends it without a word."""

    settings: Settings
    clock: FakeClock = field(default_factory=FakeClock)
    interval: float = 5.0

    def __post_init__(self) -> None:
        self.stored = MemoryBucket()
        self.jobs = MemoryBucket()
        self.ledger = MemoryLedger()
        self.leadership = Leadership()
        self.messaging = MemoryMessaging()
        self.receiver = FakeReceiver(self.clock, self.jobs, self.messaging.linked())
        self.nodes = FakeNodes(self.clock)
        self.nodes.on_terminate = lambda node: self._spawn(self._drain(node))
        self.receiver.on_created = lambda op_id: self._spawn(self.join(op_id))
        self.receiver.on_destroyed = self._destroyed
        self.audited: list[AuditEvent] = []
        self.superseded: list[int | None] = []
        self.auto_join = True
        self._tasks: set[asyncio.Task[Any]] = set()
        self.core: Core
        self.lease: MemoryLease
        self._spawn(self._hearts())

    # -------------------------------------------------------------- the core

    async def boot(self) -> Core:
        """A new process on the same stored records."""
        self.lease = MemoryLease(leadership=self.leadership)
        state = self.stored.fenced(self.lease)
        tokens = NodeTokens(b"k" * 32, "legacy-token")
        self.core = Core(
            settings=self.settings,
            stores=Stores(state=state, jobs=self.jobs, ledger=self.ledger),
            lease=self.lease,
            messaging=self.messaging,
            registry=Registry(clock=self.clock, default_interval=self.interval),
            clock=self.clock,
            events=EventHub(self.clock),
            metrics=Metrics(),
            webhooks=self.receiver,
            nodes=self.nodes,
            issuer=CredentialIssuer(tokens, NatsSettings()),
            audit=self.audited.append,
            base_url=lambda: "http://127.0.0.1:3030",
            on_superseded=self.superseded.append,
        )
        self.core.context.random = Random(7)  # noqa: S311 - jitter
        await self.core.start()
        await self.core.lead()
        await settle()
        return self.core

    async def kill(self) -> None:
        """End the core where it is; its records stay as they are."""
        await self.core.follow()
        self.messaging.exchange[:] = [one for one in self.messaging.exchange if one.owner is not self.messaging]

    async def restart(self) -> Core:
        """Kill and boot."""
        await self.kill()
        return await self.boot()

    async def __aenter__(self) -> Self:
        await self.boot()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End everything."""
        await self.kill()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -------------------------------------------------------------- nodes

    async def join(self, op_id: str) -> FakeNode | None:
        """The machine of a create operation boots and joins."""
        if not self.auto_join:
            return None
        secret = await self.core.join_secret(op_id)
        node = FakeNode(secret.node_id, ids.new_boot_id(), secret.pool)
        await self.register(node, op_id, secret.secret)
        self.nodes.all[node.node_id] = node
        self.beat(node)
        return node

    async def register(self, node: FakeNode, op_id: str | None, secret: SecretStr | None, **more: Any) -> Any:
        """One registration with a join object."""
        join = Join(
            node_id=node.node_id,
            boot_id=node.boot_id,
            pool=node.pool,
            op_id=op_id,
            secret=None if secret is None else secret.get_secret_value(),
        )
        request = RegisterRequest.model_validate({**REGISTRATION, "join": join.model_dump()})
        call = {"peer": "127.0.1.10", "host": "127.0.0.1:3030", "token": None, **more}
        return await self.core.register(request, **call)

    def beat(self, node: FakeNode, status: str | None = None) -> None:
        """One heartbeat."""
        node.seq += 1
        frame = HeartbeatFrame(
            node_id=node.node_id,
            boot_id=node.boot_id,
            seq=node.seq,
            sent_at=wire_time(self.clock.now()),
            status=status or node.status,  # type: ignore[arg-type]  # one of the spellings
            pool=node.pool,
            metrics=MetricsFrame(cpu=node.cpu, memory=0.3, connections=node.connections),
        )
        if self.messaging.connected:
            self.core.registry.on_frame(subjects.heartbeat(node.node_id), encode_frame(frame))

    def load(self, cpu: float) -> None:
        """The same cpu on every node."""
        for node in self.nodes.all.values():
            node.cpu = cpu

    def crash(self, node_id: str) -> None:
        """The process is gone, without a word."""
        self.nodes.all[node_id].alive = self.nodes.all[node_id].beating = False

    async def _hearts(self) -> None:
        while True:
            await self.clock.sleep(self.interval)
            for node in list(self.nodes.all.values()):
                if node.alive and node.beating:
                    self.beat(node)

    async def _drain(self, node: FakeNode) -> None:
        await self.clock.sleep(node.drain_seconds)
        if node.alive and node.status == "Draining":
            node.alive = node.beating = False
            self.beat(node, "Terminating")

    def _destroyed(self, node_id: str) -> None:
        if (node := self.nodes.all.get(node_id)) is not None:
            node.alive = node.beating = False

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -------------------------------------------------------------- what is

    def operations(self, action: str | None = None) -> list[Any]:
        """All operations, oldest first."""
        return [op for op in self.core.operations() if action in {None, op.action}]

    def states(self) -> list[str]:
        """The states of all known nodes, sorted."""
        return sorted(node.state for node in self.core.registry.nodes())

    def active(self) -> list[str]:
        """The node_ids in state active."""
        return [node.node_id for node in self.core.registry.nodes() if node.state == "active"]

    async def until(self, condition: Callable[[], bool], *, within: float = 600.0, step: float = 0.5) -> float:
        """Advance until ``condition``; the seconds that it took.

        Raises:
            AssertionError: it did not come.
        """
        passed = 0.0
        while not condition():
            if passed >= within:
                shown = [(op.action, op.state, op.error and op.error.code) for op in self.operations()]
                raise AssertionError(f"not within {within} s: nodes {self.states()}, operations {shown}")
            await self.clock.advance(step)
            passed += step
        return passed


def world(**orchestrator: Any) -> World:
    """A World with one pool ``default`` of the given keys of ``[orchestrator]``; a receiver that can destroy."""
    pool = orchestrator.pop("pool", {})
    keys = {"deprovisioning_webhook_url": "http://localhost:8000/deprovision", **orchestrator}
    data: dict[str, Any] = {"orchestrator": keys, "pools": {"default": {"scaling_check_interval_seconds": 10, **pool}}}
    return World(Settings.model_validate(data))
