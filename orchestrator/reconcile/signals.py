"""What heartbeats say about a node's life, carried into its record. Heartbeats come in a hot path; this does not."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from orchestrator.fleet.lifecycle import advance as advance_node
from orchestrator.fleet.registry import Signal
from orchestrator.operations.context import Context
from orchestrator.operations.executor import Executor
from orchestrator.reconcile.gate import GateClosed
from orchestrator.reconcile.liveness import Liveness
from secbeat import ids
from secbeat.store import Unavailable
from secbeat.wire.nodes import NodeRecord, NodeState

log = logging.getLogger("ResourceManager")

_BEFORE_ACTIVE: frozenset[NodeState] = frozenset({"requested", "provisioning", "booting", "joining"})
_DEAD: frozenset[NodeState] = frozenset({"unreachable", "failed"})


@dataclass(kw_only=True)
class Signals:
    """A set of (node, signal) that one task works off; signals repeat with every heartbeat, so none can be lost."""

    context: Context
    executor: Executor
    liveness: Liveness
    _waiting: dict[tuple[str, Signal], None] = field(default_factory=dict)
    _came: asyncio.Event = field(default_factory=asyncio.Event)
    _draining_since: dict[str, float] = field(default_factory=dict)

    def receive(self, node_id: str, signal: Signal) -> None:
        """Called from the heartbeat path."""
        self._waiting[node_id, signal] = None
        self._came.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._came.wait()
            self._came.clear()
            await self.turn()

    async def turn(self) -> None:
        """Work off what waits."""
        while self._waiting:
            node_id, signal = next(iter(self._waiting))
            del self._waiting[node_id, signal]
            try:
                await self._handle(node_id, signal)
            except (Unavailable, GateClosed) as error:
                # The next heartbeat says it again.
                log.debug("Signal %s of %s waits: %s", signal, node_id, error)

    async def _handle(self, node_id: str, signal: Signal) -> None:
        record = self.context.records.node(node_id)
        if record is None or not self.context.gate.lease.held:
            return
        if signal == "joined_heartbeat":
            await self._joined(record)
        elif signal == "recovered":
            await self._recovered(record)
        elif signal == "terminating":
            await self.liveness.left(node_id)
        elif signal == "draining":
            await self._draining(record)
        self.executor.wake_node(node_id)

    async def _joined(self, record: NodeRecord) -> None:
        """The first heartbeat of a registered node; of one that never registered it proves nothing."""
        if record.registered_at is None or record.state not in _BEFORE_ACTIVE or record.destroy_op_id is not None:
            return
        await self._active(record, "node.active", "is active")

    async def _recovered(self, record: NodeRecord) -> None:
        """It came back before it was replaced."""
        if record.state in _DEAD and record.destroy_op_id is None:
            await self._active(record, "node.recovered", "is heard again")

    async def _active(self, record: NodeRecord, kind: str, what: str) -> None:
        now = self.context.clock.now()
        changed = await self.context.records.change_node(
            record.node_id, lambda one: advance_node(one, "active", now=now)
        )
        if changed is None:
            return
        sentence = f"Node {ids.machine_name(record.pool, record.node_id)} of pool {record.pool} {what}"
        log.info("ResourceManager: %s", sentence, extra={"action": kind, "node_id": record.node_id})
        self.context.events.publish(kind, sentence, pool=record.pool, node_id=record.node_id, op_id=record.op_id)
        self.context.on_change(record.pool)

    async def _draining(self, record: NodeRecord) -> None:
        """It drains and we did not tell it to. Once may be a heartbeat that an undrain has overtaken."""
        now = self.context.clock.monotonic()
        if record.destroy_op_id is not None or record.legacy or record.state not in {"active", "warm"}:
            self._draining_since.pop(record.node_id, None)
            return
        since = self._draining_since.setdefault(record.node_id, now)
        node = self.context.records.registry.get(record.node_id)
        patience = 0.8 * (node.interval if node is not None else self.context.settings().heartbeat_interval_seconds)
        if now - since > 10 * patience:
            self._draining_since[record.node_id] = now  # an old story: begin anew
        elif now - since >= patience:
            del self._draining_since[record.node_id]
            await self.executor.issuing.destroy(record, reason="NODE_LEFT", by="node", leaving=True)
