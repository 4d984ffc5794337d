"""What operators and nodes ask about nodes; implements ``orchestrator.control.NodeControl``."""

from __future__ import annotations

from orchestrator.control import Missing
from orchestrator.explaining import Load, why_node
from orchestrator.joining.registering import Caller, Registering
from orchestrator.joining.secrets import JoinSecrets
from orchestrator.operations.context import Context
from orchestrator.operations.executor import Executor
from orchestrator.reconcile.gate import GateClosed
from orchestrator.reconcile.loop import ScalingLoop
from orchestrator.reconcile.pools import Pools
from orchestrator.scaling import DecisionLog
from secbeat import catalogue, ids
from secbeat.errors import RefusedError, UnreachableError
from secbeat.store import Unavailable
from secbeat.wire.nodes import NodeRecord, NodeWhy
from secbeat.wire.operations import OperationError, OperationRecord
from secbeat.wire.registration import JoinFile, JoinSecret, RegisterRequest, RegisterResponse

_LEAVABLE = frozenset({"gone", "quarantined"})


class NodeMixin:
    """Nodes of a :class:`orchestrator.core.Core`."""

    context: Context
    the_pools: Pools
    loop: ScalingLoop
    executor: Executor
    registering: Registering
    secrets: JoinSecrets
    decisions_log: DecisionLog

    async def register(self, request: RegisterRequest, *, peer: str, host: str, token: str | None) -> RegisterResponse:
        try:
            return await self.registering.register(request, Caller(peer, host, token))
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None

    async def adopt(self, node_id: str, *, peer: str) -> bool:
        try:
            return await self.registering.adopt(node_id, peer=peer)
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None

    async def join_secret(self, op_id: str) -> JoinSecret:
        """See the Protocol; fetching it is the provisioner's first sign of life for the operation."""
        op = self.context.records.operations.get(op_id)
        if op is None:
            raise Missing("NOT_FOUND", why=f"there is no operation {op_id[:64]!r}")
        if op.action != "create" or op.ended:
            raise RefusedError("OPERATION_CLOSED", why=f"operation {op_id} ({op.action}) is {op.state}")
        return await self._secret(op)

    async def _secret(self, op: OperationRecord) -> JoinSecret:
        self.context.gate.need_store()
        ttl = self.context.settings().join_secret_ttl_seconds
        try:
            secret, expires_at = await self.secrets.issue(
                op.op_id, op.node_id, now=self.context.clock.now(), ttl_seconds=ttl
            )
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None
        return JoinSecret.model_validate(
            {
                "cluster_id": op.cluster_id,
                "node_id": op.node_id,
                "op_id": op.op_id,
                "pool": op.pool,
                "secret": secret,
                "expires_at": expires_at,
            }
        )

    async def new_node(self, pool: str, *, server_url: str, by: str) -> JoinFile:
        """A node by hand counts like any other: max holds for it."""
        if not self.the_pools.configured(pool):
            raise Missing("NOT_FOUND", why=f"there is no pool {pool[:64]!r} in the configuration")
        seen, policy = self.the_pools.snapshot(pool), self.the_pools.policy(pool)
        if seen.capacity >= policy.max:
            raise RefusedError("AT_MAX", why=f"pool {pool} has {seen.capacity} nodes and max is {policy.max}")
        self._room(pool, "create")
        try:
            op = await self.executor.issuing.create(pool, reason="MANUAL", by=by, by_hand=True)
        except GateClosed as closed:
            raise closed.as_error() from None
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None
        secret = await self._secret(op)
        return JoinFile(server_url=server_url, **secret.model_dump())

    def why_node(self, node_id: str) -> NodeWhy:
        operation = self._concerning(node_id)
        record = self.context.records.node(node_id)
        if record is None:
            record = self._node(node_id) if operation is None else _gone(operation)
        return why_node(
            record,
            load=self._load(node_id),
            decision=self.decisions_log.last(record.pool),
            policy=self.the_pools.policy(record.pool),
            operation=operation,
            boot=self._boot_error(node_id),
        )

    def _load(self, node_id: str) -> Load:
        """What is heard of the node, by the rules of ``summarise``."""
        node, now = self.context.records.registry.get(node_id), self.context.clock.monotonic()
        if node is None or node.deadline < now:
            return "silent"
        if node.joined > now - self.the_pools.policy(node.pool).warmup_seconds:
            return "warming"
        return "counts" if node.metrics_until >= now else "stale"

    def _boot_error(self, node_id: str) -> OperationError | None:
        """Why the node's own boot failed."""
        boots = (op for op in self.context.records.operations.values() if op.node_id == node_id)
        return next((op.error for op in boots if op.action == "create" and op.state == "failed"), None)

    def _concerning(self, node_id: str) -> OperationRecord | None:
        """The open operation about the node, else the last one that should have removed it and could not."""
        known = [op for op in self.context.records.operations.values() if op.node_id == node_id]
        stuck = [op for op in known if op.action == "destroy" and op.state in {"needs_operator", "failed"}]
        found = [op for op in known if not op.ended] or stuck
        return max(found, key=lambda op: op.op_id, default=None)

    async def drain(self, node_id: str, *, reason: str, by: str) -> OperationRecord:
        record = self._node(node_id)
        if (known := self.executor.issuing.open_destroy(node_id)) is not None:
            return known
        if record.state in _LEAVABLE:
            raise RefusedError("NODE_NOT_OURS", why=f"node {node_id} is {record.state}")
        self._room(record.pool, "destroy")
        code = reason if reason in catalogue.ALL else "MANUAL"
        try:
            op = await self.executor.issuing.destroy(record, reason=code, by=by)
        except GateClosed as closed:
            raise closed.as_error() from None
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None
        said = f": {reason}" if code != reason and reason else ""
        name = ids.machine_name(record.pool, node_id)
        self.context.events.publish(
            "node.drain_requested", f"{by} drains node {name}{said}", pool=record.pool, node_id=node_id, op_id=op.op_id
        )
        self.loop.wake(record.pool)
        return self.context.records.operations[op.op_id]

    async def undrain(self, node_id: str, *, by: str) -> OperationRecord:
        self._node(node_id)
        op = self.executor.issuing.open_destroy(node_id)
        if op is None:
            raise RefusedError("NOT_DRAINING", why=f"node {node_id} is not draining")
        try:
            return await self.executor.undrain(op, by=by)
        except GateClosed as closed:
            raise closed.as_error() from None

    async def protect(self, node_id: str, *, on: bool, by: str) -> None:
        record = self._node(node_id)
        self.context.gate.need_store()
        try:
            await self.context.records.change_node(node_id, lambda one: one.model_copy(update={"protected": on}))
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None
        name = ids.machine_name(record.pool, node_id)
        what = "protects" if on else "no longer protects"
        self.context.events.publish("node.protected", f"{by} {what} node {name}", pool=record.pool, node_id=node_id)

    def _node(self, node_id: str) -> NodeRecord:
        record = self.context.records.node(node_id)
        if record is None:
            raise Missing("NOT_FOUND", why=f"there is no node {node_id[:64]!r}", fix="List them: secbeat nodes --all")
        return record

    def _room(self, pool: str, action: str) -> None:
        if self.executor.issuing.room(pool, "create" if action == "create" else "destroy") == 0:
            settings = self.context.settings()
            raise RefusedError(
                "OPEN_OPERATIONS_LIMIT",
                why=f"so many {action} operations may be open: {settings.max_open_operations_per_pool} in pool {pool}, "
                f"{settings.max_open_operations} in all",
            )


def _gone(operation: OperationRecord) -> NodeRecord:
    """A node that only the operation which could not remove its machine still knows."""
    return NodeRecord(
        node_id=operation.node_id,
        pool=operation.pool,
        state="gone",
        state_since=operation.ended_at or operation.updated_at,
        created_at=operation.created_at,
    )
