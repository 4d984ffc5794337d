"""Verdicts of death: never on the strength of missing data.

A node is dead when nothing was heard of it for three of its intervals *and* its own port does not answer, twice, while
this orchestrator can trust its own ears: it leads, NATS is connected, its own canary came back, its loop does not lag,
and it has listened for long enough. More silence than a few nodes' worth is an outage, which ``decide`` holds.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from orchestrator.fleet.lifecycle import advance as advance_node
from orchestrator.fleet.node import Node
from orchestrator.operations.context import Context
from orchestrator.operations.executor import Executor
from orchestrator.operations.issuing import DRAIN_SLACK_SECONDS
from orchestrator.reconcile.gate import GateClosed
from orchestrator.reconcile.pools import Pools
from orchestrator.scaling import allowed_silence
from secbeat import ids, subjects
from secbeat.store import Messaging, Subscription, Unavailable
from secbeat.wire.nodes import NodeRecord, NodeState

log = logging.getLogger("ResourceManager")

CANARY = subjects.event("canary")
_MAX_LAG_SECONDS = 2.0
_PROBES_AT_ONCE = 20
_WATCHED: frozenset[NodeState] = frozenset({"active", "warm", "unreachable", "joining"})


@dataclass(kw_only=True)
class Liveness:
    """One pass every few seconds; reads and records, and issues nothing but the removal of nodes that left."""

    context: Context
    pools: Pools
    executor: Executor
    messaging: Messaging
    _heard: float = float("-inf")
    _trusted_since: float | None = None
    _last_pass: float | None = None
    _isolated: set[str] = field(default_factory=set)
    _subscription: Subscription | None = None

    async def start(self) -> None:
        """Listen for the canary."""

        def back(_subject: str, _payload: bytes) -> None:
            self._heard = self.context.clock.monotonic()

        if self._subscription is None:
            self._subscription = await self.messaging.subscribe(CANARY, back)

    def restart(self) -> None:
        """A new leadership: listen for a whole window before any verdict."""
        self._trusted_since = self._last_pass = None

    @property
    def pass_seconds(self) -> float:
        """Seconds between two passes."""
        return max(1.0, min(self.context.settings().heartbeat_interval_seconds, 10.0))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.context.clock.sleep(self.pass_seconds)
            try:
                await self.turn()
            except Unavailable as error:
                log.warning("ResourceManager: no verdicts now, the store is away: %s", error)

    async def turn(self) -> None:
        """One pass."""
        trusted = self._trust()
        await self.messaging.publish(CANARY, b"{}")
        for name in self.pools.names():
            await self._departed(name)
            if trusted:
                await self._verdicts(name)

    def _trust(self) -> bool:
        """Whether silence means something now."""
        now, settings = self.context.clock.monotonic(), self.context.settings()
        last, self._last_pass = self._last_pass, now
        lagged = last is None or now - last > self.pass_seconds + _MAX_LAG_SECONDS
        deaf = now - self._heard > 2 * self.pass_seconds + _MAX_LAG_SECONDS
        away = not self.context.gate.lease.held or not self.messaging.connected
        if lagged or deaf or away:
            self._trusted_since = None
            return False
        if self._trusted_since is None:
            self._trusted_since = now
        return now - self._trusted_since >= 3 * settings.heartbeat_interval_seconds

    # -------------------------------------------------------------- silent nodes

    async def _verdicts(self, name: str) -> None:
        registry, now = self.context.records.registry, self.context.clock.monotonic()
        watched = [node for node in registry.nodes(name) if node.state in _WATCHED and not node.leaving]
        silent = [node for node in watched if registry.silent(node, now) and not self._booting(node)]
        self._isolated &= {node.node_id for node in silent}
        if not silent:
            return
        failed = sum(node.state == "failed" and not node.leaving for node in registry.nodes(name))
        known = len(watched) + failed
        if len(silent) + failed > allowed_silence(known) and not self.pools.history(name).thawed:
            return  # an outage: nobody is judged
        limit = asyncio.Semaphore(_PROBES_AT_ONCE)
        alive = await asyncio.gather(*(self._answers(node.node_id, limit) for node in silent))
        for node, answers in zip(silent, alive, strict=True):
            await self._judge(node.node_id, alive=answers)

    def _booting(self, node: Node) -> bool:
        """A node on its way has its operation's deadline instead."""
        if node.state != "joining":
            return False
        return any(
            op.node_id == node.node_id and op.action == "create"
            for op in self.context.records.open_operations(node.pool)
        )

    async def _answers(self, node_id: str, limit: asyncio.Semaphore) -> bool:
        async with limit:
            record = self.context.records.node(node_id)
            return record is not None and await self.context.nodes.answers(self.context.target(record))

    async def _judge(self, node_id: str, *, alive: bool) -> None:
        """Silent and dead once: unreachable. Twice: failed. Alive: it stays, whatever it does not say."""
        record, registry = self.context.records.node(node_id), self.context.records.registry
        node = registry.get(node_id)
        if record is None or node is None or record.destroy_op_id is not None:
            return
        if not registry.silent(node, self.context.clock.monotonic()):
            return  # it was heard while we asked
        name = ids.machine_name(record.pool, node_id)
        if alive and record.legacy and self._heir(record) is not None:
            await self.context.records.drop_node(node_id)
            self._tell("node.superseded", f"Node {name} was started anew under another id", record.pool, node_id)
        elif alive:
            if node_id not in self._isolated:
                self._isolated.add(node_id)
                self._tell(
                    "node.isolated",
                    f"Node {name} sends no heartbeats but answers on its own port: it stays",
                    record.pool,
                    node_id,
                )
            if record.state == "unreachable":
                await self._state(node_id, "active")
        elif record.state != "unreachable":
            await self._state(node_id, "unreachable")
            self._tell(
                "node.unreachable", f"Node {name} is silent and its own port does not answer", record.pool, node_id
            )
        else:
            await self._state(node_id, "failed")
            self.context.metrics.node_died()
            self._tell(
                "node.failed",
                f"Node {name} is dead: silent, and its own port did not answer twice",
                record.pool,
                node_id,
            )
            self.context.on_change(record.pool)

    def _heir(self, record: NodeRecord) -> str | None:
        """A later registration from the same address and port that is alive: a node of the original, restarted."""
        registry, now = self.context.records.registry, self.context.clock.monotonic()
        place = (record.management_host, record.management_port)
        for node in registry.nodes(record.pool):
            if not node.legacy or node.node_id == record.node_id or registry.silent(node, now):
                continue
            other = node.record
            later = (other.registered_at or other.created_at) > (record.registered_at or record.created_at)
            if later and (other.management_host, other.management_port) == place:
                return other.node_id
        return None

    async def _state(self, node_id: str, state: NodeState) -> None:
        now = self.context.clock.now()
        await self.context.records.change_node(node_id, lambda one: advance_node(one, state, now=now))

    # -------------------------------------------------------------- nodes that leave by themselves

    async def _departed(self, name: str) -> None:
        """A node that ended by its own word, and was not told to by us: its machine goes, nothing has failed."""
        registry = self.context.records.registry
        said = [
            node.node_id
            for node in registry.nodes(name)
            if node.reported_status == "Terminating" and not node.leaving and node.state not in {"terminating", "gone"}
        ]
        for node_id in said:
            await self.left(node_id)

    async def left(self, node_id: str) -> None:
        """The node's final heartbeat came. In mode 'observe' nothing is torn down, the record alone goes."""
        record = self.context.records.node(node_id)
        if record is None or record.destroy_op_id is not None:
            return
        try:
            await self.executor.issuing.destroy(record, reason="NODE_LEFT", by="node", leaving=True)
        except GateClosed as closed:
            if closed.code == "OBSERVE_MODE" and self._ended_long_ago(node_id):
                await self.context.records.drop_node(node_id)

    def _ended_long_ago(self, node_id: str) -> bool:
        node = self.context.records.registry.get(node_id)
        return node is not None and self.context.clock.monotonic() - node.received > DRAIN_SLACK_SECONDS

    def _tell(self, kind: str, sentence: str, pool: str, node_id: str) -> None:
        log.warning("ResourceManager: %s", sentence, extra={"action": kind, "node_id": node_id, "pool": pool})
        self.context.events.publish(kind, sentence, pool=pool, node_id=node_id)
