"""Nodes that register or beat in the original's form: no secret, so they come from ``legacy_nodes`` or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.fleet import Node
from orchestrator.fleet.lifecycle import advance as advance_node
from orchestrator.joining.places import Place, Places
from orchestrator.operations.addresses import is_loopback, within
from orchestrator.operations.context import Context
from orchestrator.operations.executor import Executor
from orchestrator.reconcile.records import Records
from secbeat import ids
from secbeat.errors import AuthError
from secbeat.wire.nodes import NodeRecord, NodeState
from secbeat.wire.operations import OperationRecord
from secbeat.wire.registration import RegisterRequest

log = logging.getLogger("ResourceManager")

_MANAGEMENT_PORT = 9999
_UNHEARD_SECONDS = 90.0  # the original's first heartbeat comes within 60 s of its registration
_UNBORN: frozenset[NodeState] = frozenset({"requested", "provisioning", "booting"})
_COUNTED: frozenset[NodeState] = _UNBORN | {"joining", "active", "unreachable"}


class OriginalForm:
    """Registration and adoption; one at a time, so that two nodes never claim the same operation."""

    def __init__(self, context: Context, executor: Executor, pools: Callable[[], Mapping[str, object]]) -> None:
        self._context = context
        self._executor = executor
        self._pools = pools
        self._places = Places(context.records.registry)
        self._lock = asyncio.Lock()

    async def register(self, request: RegisterRequest, *, peer: str) -> NodeRecord:
        """The node's record: of a silent node at the same place, of the oldest untracked create, or a new one.

        Raises:
            AuthError: LEGACY_REFUSED.
        """
        if not within(peer, self._context.settings().legacy_nodes):
            raise AuthError("LEGACY_REFUSED", why=f"{peer} is not in legacy_nodes, there is no join secret", status=403)
        pool, now = self._pool(request), self._context.clock.now()
        facts: dict[str, Any] = {
            "legacy": True,
            "public_ip": public_ip(request, peer),
            "peer_address": peer,
            "config": request.config,
            "registered_at": now,
        }
        if request.join is not None:
            facts |= {"listening": request.join.listening, "agent_version": request.join.agent_version}
        async with self._lock:
            self._places.look(self._context.gate.lease.epoch)
            place = (peer, _management_port(request))
            known = await self._returned(pool, place, facts) or await self._claimed(pool, facts)
            if known is not None:
                return known
            await self._make_room(pool, place)
        node = NodeRecord(
            node_id=ids.new_node_id(), pool=pool, state="joining", state_since=now, created_at=now, **facts
        )
        # Nobody else can claim what is new: written outside the lock, a thousand are on their way at once.
        tell_joined(self._context, await self._context.records.put_node(node), "registered without a secret")
        self._places.add(node)
        return node

    async def adopt(self, node_id: str, *, peer: str) -> bool:
        """Whether an unknown node that beats is, or now becomes, one of ours."""
        if not within(peer, self._context.settings().legacy_nodes):
            return False
        async with self._lock:
            if self._context.records.node(node_id) is not None:
                return True
            now = self._context.clock.now()
            node = NodeRecord(
                node_id=node_id,
                pool=self._pool(None),
                state="joining",
                state_since=now,
                created_at=now,
                registered_at=now,
                legacy=True,
                peer_address=peer,
                public_ip=peer,
            )
            await self._context.records.put_node(node)
            self._places.add(node)
            tell_joined(self._context, node, "was unknown and is adopted by its heartbeat")
            return True

    async def _returned(self, pool: str, place: Place, facts: Mapping[str, Any]) -> NodeRecord | None:
        """A node at the same address and port whose process has ended: this is it, started anew.

        One that crashes over and over leaves a registration each time, and none ever beats: those are forgotten.
        """
        for node in self._places.at(place, pool):
            if not self._ended(node):
                continue
            if not _never_was(node) or node.record.op_id is not None:
                return await self._change(node.node_id, None, facts)
            await self._context.records.drop_node(node.node_id)
        return None

    def _ended(self, node: Node) -> bool:
        """Whether its process has ended, as far as heartbeats tell.

        A node that was told to go and never spoke of a drain is the original's: it exits at once, and its supervisor
        starts it again. It keeps its identity, and its drain goes on: as a new node it would count until its machine
        is torn down under it, and be replaced then.
        """
        if node.leaving:
            return node.state == "draining" and node.reported_status not in {"Draining", "Terminating"}
        now = self._context.clock.monotonic()
        if _never_was(node):
            return now - node.joined > _UNHEARD_SECONDS
        return node.heard and self._context.records.registry.silent(node, now)

    async def _make_room(self, pool: str, place: Place) -> None:
        """In a full pool, a new node takes the place of those from its address that never beat.

        Else one that crashes over and over would fill the pool beyond its max, and nodes that serve would leave.
        """
        registry, most = self._context.records.registry, self._context.policy(pool).max
        if len(registry) < most or sum(node.state in _COUNTED for node in registry.nodes(pool)) < most:
            return
        for node in self._places.at(place, pool):
            if _never_was(node) and node.record.op_id is None:
                await self._context.records.drop_node(node.node_id)

    async def _claimed(self, pool: str, facts: Mapping[str, Any]) -> NodeRecord | None:
        """The node of the oldest create that a receiver took without knowing its id."""
        for op in self._context.records.open_operations(pool):
            if not self._claimable(op):
                continue
            changed = await self._change(op.node_id, "joining", facts)
            if changed is not None:
                what = f"registered without a secret and is taken for the one of operation {op.op_id}"
                tell_joined(self._context, changed, what)
                self._executor.wake(op.op_id)
                return changed
        return None

    def _claimable(self, op: OperationRecord) -> bool:
        node = self._context.records.node(op.node_id)
        return op.action == "create" and op.tracked is False and node is not None and node.state in _UNBORN

    async def _change(self, node_id: str, state: NodeState | None, facts: Mapping[str, Any]) -> NodeRecord | None:
        now = self._context.clock.now()
        changed = await self._context.records.change_node(
            node_id, lambda one: advance_node(one, state or one.state, now=now, **facts)
        )
        if changed is not None:
            self._places.add(changed)
        return changed

    def _pool(self, request: RegisterRequest | None) -> str:
        pools = self._pools()
        if request is not None and request.join is not None and request.join.pool in pools:
            return request.join.pool
        return "default" if "default" in pools or not pools else next(iter(pools))


def _never_was(node: Node) -> bool:
    """Whether it has registered and never beaten."""
    return node.state == "joining" and not node.heard


def _management_port(request: RegisterRequest) -> int:
    return request.join.listening.management_port if request.join is not None else _MANAGEMENT_PORT


def public_ip(request: RegisterRequest, peer: str) -> str:
    """The original's node says 127.0.0.1 whatever it is; then the peer's address is the better one."""
    claimed = str(request.public_ip)
    return peer if is_loopback(claimed) and not is_loopback(peer) else claimed


def was_destroyed(records: Records, node_id: str) -> bool:
    """Whether this orchestrator has told the node to go: such an identity never comes back."""
    return any(
        op.node_id == node_id and op.action == "destroy" and op.state != "cancelled"
        for op in records.operations.values()
    )


def tell_joined(context: Context, node: NodeRecord, what: str) -> None:
    """One log line and one event."""
    sentence = f"Node {ids.machine_name(node.pool, node.node_id)} of pool {node.pool} {what}"
    log.info("ResourceManager: %s", sentence, extra={"action": "node_joined", "node_id": node.node_id})
    context.events.publish("node.joined", sentence, pool=node.pool, node_id=node.node_id, op_id=node.op_id)
    context.on_change(node.pool)
