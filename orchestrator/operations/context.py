"""What the steps of an operation work with."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from orchestrator.events import EventHub
from orchestrator.metrics import Metrics
from orchestrator.operations import states, tracing
from orchestrator.operations.jobs import Jobs
from orchestrator.operations.management import Nodes, Target
from orchestrator.operations.webhook import Webhooks
from orchestrator.reconcile.gate import Gate
from orchestrator.reconcile.records import Records
from secbeat import ids
from secbeat.clock import Clock
from secbeat.settings import OrchestratorSettings, PoolSettings
from secbeat.store import Ledger, NotLeader, Unavailable
from secbeat.telemetry.tracing import OFF, Tracing
from secbeat.wire.base import Record
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.operations import OperationError, OperationRecord, OperationState
from secbeat.wire.webhook import FleetMetrics

log = logging.getLogger("ResourceManager")

T = TypeVar("T")

POLL_SECONDS = 2.0
"""How often a job record is read when no hint comes."""
_CODE = re.compile(r"^[A-Z][A-Z0-9_]{0,63}$")


@dataclass(kw_only=True)
class Context:
    """Collaborators, and the few things that every step does."""

    records: Records
    gate: Gate
    webhooks: Webhooks
    nodes: Nodes
    jobs: Jobs
    clock: Clock
    ledger: Ledger
    events: EventHub
    metrics: Metrics
    settings: Callable[[], OrchestratorSettings]
    policy: Callable[[str], PoolSettings]
    fleet: Callable[[str], FleetMetrics]
    token: Callable[[NodeRecord], str | None]
    callback_url: Callable[[str], str | None]
    on_superseded: Callable[[int | None], None] = lambda _epoch: None
    on_change: Callable[[str], None] = lambda _pool: None
    random: Random = field(default_factory=Random)
    tracing: Tracing = OFF

    # -------------------------------------------------------------- records

    async def surely(self, write: Callable[[], Awaitable[T]]) -> T:
        """Repeat ``write`` until it is confirmed: what it records has happened and must not be forgotten.

        Raises:
            NotLeader: somebody else leads now, and finds out by itself.
        """
        while True:
            try:
                return await write()
            except NotLeader:
                raise
            except Unavailable as error:
                self.metrics.store_error("state")
                log.warning("The store did not confirm a write (%s); trying again", error, extra={"action": "retry"})
                await self.clock.sleep(1.0)

    async def alter(self, op: OperationRecord, **changes: object) -> OperationRecord:
        """Change facts of an operation."""
        now = self.clock.now()
        if all(getattr(op, name) == value for name, value in changes.items()):
            return op
        return await self.surely(
            lambda: self.records.change_operation(op.op_id, lambda one: states.change(one, now=now, **changes))
        )

    async def advance(self, op: OperationRecord, state: OperationState, **changes: object) -> OperationRecord:
        """Change an operation's state; tells events, metrics, ledger and log, once."""
        now = self.clock.now()
        record = await self.surely(
            lambda: self.records.change_operation(op.op_id, lambda one: states.advance(one, state, now=now, **changes))
        )
        self.tell(record)
        if record.ended:
            self.metrics.operation_ended(record)
            tracing.ended(self.tracing, record)
            await self.note("operation", record.pool, record)
        self.on_change(record.pool)
        return record

    def tell(self, op: OperationRecord) -> None:
        """One event and one log line for an operation's present state."""
        why = f": {op.error.message}" if op.error is not None and op.state in {"failed", "needs_operator"} else ""
        name = ids.machine_name(op.pool, op.node_id)
        sentence = f"Operation to {op.action} {name} of pool {op.pool} is {op.state} ({op.reason}){why}"
        level = logging.WARNING if op.state in {"failed", "needs_operator"} else logging.INFO
        log.log(
            level,
            "ResourceManager scaling: %s",
            sentence,
            extra={"action": "operation", "op_id": op.op_id, "node_id": op.node_id, "pool": op.pool, "state": op.state},
        )
        facts = {"state": op.state, "action": op.action, "reason": op.reason}
        if op.error is not None:
            facts |= {"code": op.error.code, "task": op.error.task or ""}
        self.events.publish(
            f"operation.{op.state}", sentence, pool=op.pool, node_id=op.node_id, op_id=op.op_id, **facts
        )

    async def note(self, kind: str, pool: str, record: Record) -> None:
        """Append to the ledger; a ledger that is away costs the entry, never the operation."""
        try:
            await self.ledger.append(kind, pool, record.encode())
        except Unavailable as error:
            self.metrics.store_error("ledger")
            log.warning("The ledger lacks one %s: %s", kind, error, extra={"action": "ledger_lost"})

    # -------------------------------------------------------------- nodes

    def target(self, node: NodeRecord) -> Target:
        """Where and with which token a node is called."""
        proxy = node.machine.proxy_port if node.machine is not None else node.listening.proxy_port
        return Target(node.node_id, node.management_host, node.management_port, proxy, self.token(node))

    def silent(self, node_id: str) -> bool:
        """Whether nothing was heard of the node for several of its intervals."""
        found = self.records.registry.get(node_id)
        return found is None or self.records.registry.silent(found, self.clock.monotonic())


def error(code: str, message: str, task: str | None = None) -> OperationError:
    """An error for a record; what is no code of ours becomes JOB_FAILED with the same sentence."""
    return OperationError(
        code=code if _CODE.fullmatch(code) else "JOB_FAILED",
        message=message[:2000],
        task=task[:500] if task else None,
    )
