"""The leader's records: bucket ``state`` mirrored in memory, every change written before it is believed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from orchestrator.fleet.registry import Registry
from secbeat import ids
from secbeat.store import Bucket, Conflict, Entry
from secbeat.wire.base import VERSION, Record
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.operations import OperationRecord
from secbeat.wire.pools import PoolRecord

log = logging.getLogger("ResourceManager")

R = TypeVar("R", bound=Record)
_CLUSTER = "cluster"
_BATCH = 100  # records that are read without a pause


class Records:
    """Nodes, operations and pools.

    Reads are from memory. A change takes the current record, writes the changed one, then replaces it in memory;
    changes of one record follow each other. When a write is not confirmed (``Unavailable``) memory keeps the old
    record and the caller tries again: only the leader writes, and a write repeated is the same write.
    """

    def __init__(self, bucket: Bucket, registry: Registry) -> None:
        self.bucket = bucket
        self.registry = registry
        self.on_loaded: Callable[[], None] = lambda: None
        self.cluster_id = ""
        self.operations: dict[str, OperationRecord] = {}
        self.pools: dict[str, PoolRecord] = {}
        self._pool_revisions: dict[str, int] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def load(self) -> None:
        """Read everything; what is in memory from before (a lost leadership) is replaced.

        Raises:
            Unavailable: the store does not answer.
            ConfigError: a record of a newer version (STATE_NEWER).
        """
        nodes = await self.bucket.entries("node.")
        self.operations = {record.op_id: record for record, _ in await self._decoded("op.", OperationRecord)}
        pools = await self._decoded("pool.", PoolRecord)
        self.pools = {record.name: record for record, _ in pools}
        self._pool_revisions = {record.name: revision for record, revision in pools}
        self.cluster_id = await self._cluster()
        await self._fill(nodes)
        self.on_loaded()

    async def _fill(self, entries: list[Entry]) -> None:
        """The registry holds ``entries`` and nothing else; they are used up, and the loop gets its turn between."""
        known = {entry.key.removeprefix("node.") for entry in entries}
        for stale in [node.node_id for node in self.registry.nodes() if node.node_id not in known]:
            self.registry.drop(stale)
        entries.reverse()
        while entries:
            # Each is packed and let go before the next: all at once, a large fleet's would be 4 KB each.
            for _ in range(min(_BATCH, len(entries))):
                self.registry.put(NodeRecord.decode(entries.pop().value))
            await asyncio.sleep(0)

    async def _decoded(self, prefix: str, model: type[R]) -> list[tuple[R, int]]:
        return [(model.decode(entry.value), entry.revision) for entry in await self.bucket.entries(prefix)]

    async def _cluster(self) -> str:
        """The cluster's id, made once."""
        entry = await self.bucket.get(_CLUSTER)
        if entry is None:
            made = msgspec.json.encode({"v": VERSION, "cluster_id": ids.new_cluster_id()})
            with contextlib.suppress(Conflict):  # somebody was faster; theirs stands
                await self.bucket.create(_CLUSTER, made)
            entry = await self.bucket.get(_CLUSTER)
            assert entry is not None  # noqa: S101 - just written, and a fenced bucket has one writer
        return ids.check_uuid(msgspec.json.decode(entry.value)["cluster_id"])

    # -------------------------------------------------------------- nodes

    def node(self, node_id: str) -> NodeRecord | None:
        """The record of a node, or None."""
        found = self.registry.get(node_id)
        return None if found is None else found.record

    async def put_node(self, record: NodeRecord) -> NodeRecord:
        """Write a new node."""
        async with self._lock(f"node.{record.node_id}"):
            await self.bucket.put(f"node.{record.node_id}", record.encode())
            self.registry.put(record)
        return record

    async def change_node(self, node_id: str, change: Callable[[NodeRecord], NodeRecord]) -> NodeRecord | None:
        """Change a node; None if there is no such node. A change that changes nothing writes nothing."""
        async with self._lock(f"node.{node_id}"):
            current = self.node(node_id)
            if current is None:
                return None
            changed = change(current)
            if changed != current:
                await self.bucket.put(f"node.{node_id}", changed.encode())
                self.registry.put(changed)
            return changed

    async def drop_node(self, node_id: str) -> None:
        """Forget a node."""
        async with self._lock(f"node.{node_id}"):
            await self.bucket.delete(f"node.{node_id}")
            self.registry.drop(node_id)

    # -------------------------------------------------------------- operations

    def open_operations(self, pool: str | None = None) -> list[OperationRecord]:
        """Operations that have not ended, oldest first."""
        return sorted(
            (op for op in self.operations.values() if not op.ended and pool in (None, op.pool)),
            key=lambda op: op.op_id,
        )

    async def put_operation(self, record: OperationRecord) -> OperationRecord:
        """Write a new operation."""
        async with self._lock(f"op.{record.op_id}"):
            await self.bucket.put(f"op.{record.op_id}", record.encode())
            self.operations[record.op_id] = record
        return record

    async def change_operation(
        self, op_id: str, change: Callable[[OperationRecord], OperationRecord]
    ) -> OperationRecord:
        """Change an operation; a change that changes nothing writes nothing."""
        async with self._lock(f"op.{op_id}"):
            current = self.operations[op_id]
            changed = change(current)
            if changed != current:
                await self.bucket.put(f"op.{op_id}", changed.encode())
                self.operations[op_id] = changed
            return changed

    async def drop_operation(self, op_id: str) -> None:
        """Forget an ended operation."""
        async with self._lock(f"op.{op_id}"):
            await self.bucket.delete(f"op.{op_id}")
            self.operations.pop(op_id, None)

    # -------------------------------------------------------------- pools

    def pool(self, name: str) -> PoolRecord:
        """The record of a pool; a fresh one if nothing was ever written."""
        return self.pools.get(name) or PoolRecord(name=name)

    def pool_revision(self, name: str) -> int:
        """Grows with every change of the pool's record."""
        return self._pool_revisions.get(name, 0)

    async def change_pool(self, name: str, change: Callable[[PoolRecord], PoolRecord]) -> PoolRecord:
        """Change a pool; a change that changes nothing writes nothing."""
        async with self._lock(f"pool.{name}"):
            current = self.pool(name)
            changed = change(current)
            if changed != current:
                self._pool_revisions[name] = await self.bucket.put(f"pool.{name}", changed.encode())
                self.pools[name] = changed
            return changed

    def _lock(self, key: str) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock


def updated(record: R, **changes: Any) -> R:
    """A copy with facts changed."""
    return record.model_copy(update=changes)
