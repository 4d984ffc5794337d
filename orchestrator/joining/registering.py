"""Registrations: a join with a one-use secret, a re-join with the node's own token, the original's form."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.fleet.lifecycle import advance as advance_node
from orchestrator.joining.credentials import CredentialIssuer
from orchestrator.joining.original import OriginalForm, public_ip, tell_joined, was_destroyed
from orchestrator.joining.secrets import JoinSecrets
from orchestrator.operations.context import Context
from orchestrator.operations.executor import Executor
from orchestrator.reconcile.gate import GateClosed
from secbeat import ids
from secbeat.errors import AuthError, RefusedError, UnreachableError
from secbeat.settings import OrchestratorSettings
from secbeat.store import Lease
from secbeat.wire.events import AuditEvent
from secbeat.wire.nodes import NodeRecord, NodeState
from secbeat.wire.operations import OperationRecord
from secbeat.wire.registration import Credentials, Endpoints, Join, RegisterRequest, RegisterResponse

log = logging.getLogger("ResourceManager")

_BOOTING: frozenset[NodeState] = frozenset({"requested", "provisioning", "booting", "quarantined"})
_OVER: frozenset[NodeState] = frozenset({"terminating", "gone"})


@dataclass(frozen=True)
class Caller:
    """Where a registration comes from: TCP peer, Host header, bearer token."""

    peer: str
    host: str
    token: str | None = None


@dataclass(kw_only=True)
class Registering:
    """Takes nodes in. What it records has happened, so observe mode does not stop it; it needs the lease."""

    context: Context
    executor: Executor
    secrets: JoinSecrets
    issuer: CredentialIssuer
    lease: Lease
    pools: Callable[[], Mapping[str, object]]
    audit: Callable[[AuditEvent], None]
    scheme: str = "http"

    def __post_init__(self) -> None:
        self.original = OriginalForm(self.context, self.executor, self.pools)

    async def register(self, request: RegisterRequest, caller: Caller) -> RegisterResponse:
        """See ``orchestrator.control.NodeControl.register``.

        Raises:
            AuthError: JOIN_SECRET_WRONG, JOIN_EXPIRED, JOIN_REUSED, LEGACY_REFUSED.
            RefusedError: NODE_GONE: the node's life is over, its machine must not go on.
            UnreachableError: NOT_LEADER.
        """
        if not self.lease.held:
            raise UnreachableError("NOT_LEADER", why="another orchestrator leads; ask it, or again in a moment")
        join = request.join
        if join is not None and join.secret is not None:
            node = await self._join(request, join, join.secret, caller)
        elif join is not None and caller.token is not None:
            node = await self._rejoin(request, join, caller)
        else:
            return self._answer(await self.original.register(request, peer=caller.peer), caller, join)
        return self._answer(node, caller, join, self._credentials(node, join))

    # -------------------------------------------------------------- with a secret

    async def _join(self, request: RegisterRequest, join: Join, secret: str, caller: Caller) -> NodeRecord:
        op_id, now = join.op_id, self._now()
        if op_id is None:
            raise AuthError("JOIN_SECRET_WRONG", why="a join needs the op_id that its secret is bound to")
        use = await self.secrets.consume(
            op_id=op_id,
            node_id=join.node_id,
            secret=secret,
            boot_id=join.boot_id,
            nats_public_key=join.nats_public_key,
            peer=caller.peer,
            now=now,
        )
        if use == "wrong":
            raise AuthError("JOIN_SECRET_WRONG", why="this is not the current secret of that operation and node")
        if use == "expired":
            raise AuthError("JOIN_EXPIRED", why="the secret was not used in its time")
        if use == "reused":
            await self._alarm(op_id, join.node_id, caller)
            raise AuthError("JOIN_REUSED", why="the secret was used before; the node that used it is removed")
        op = self.context.records.operations.get(op_id)
        node = self.context.records.node(join.node_id)
        if op is None or node is None or node.destroy_op_id is not None or node.state in _OVER:
            raise RefusedError("NODE_GONE", why="the operation behind this join has ended")
        return await self._taken_in(node, request, join, caller, op)

    async def _taken_in(
        self, node: NodeRecord, request: RegisterRequest, join: Join, caller: Caller, op: OperationRecord | None
    ) -> NodeRecord:
        """Record the (re-)join. A node that is up already keeps its state: its heartbeats speak for it."""
        now = self._now()

        def change(one: NodeRecord) -> NodeRecord:
            return advance_node(
                one,
                "joining" if one.state in _BOOTING else one.state,
                now=now,
                boot_id=join.boot_id,
                registered_at=one.registered_at or now,
                public_ip=public_ip(request, caller.peer),
                peer_address=caller.peer,
                config=request.config,
                listening=join.listening,
                nats_public_key=join.nats_public_key,
                agent_version=join.agent_version,
            )

        first = node.registered_at is None
        changed = await self.context.records.change_node(node.node_id, change)
        if changed is None:
            raise RefusedError("NODE_GONE", why="the node was removed meanwhile")
        if first:
            tell_joined(self.context, changed, "joined with its secret")
        if op is not None:
            self.executor.wake(op.op_id)
        return changed

    async def _alarm(self, op_id: str, node_id: str, caller: Caller) -> None:
        """A used secret came again: one of the two is a thief, so what was issued for it ends."""
        node = self.context.records.node(node_id)
        name = node_id if node is None else ids.machine_name(node.pool, node_id)
        sentence = f"The join secret of {name} was used a second time, from {caller.peer}: the node is removed"
        log.error("ResourceManager: %s", sentence, extra={"action": "join_reused", "op_id": op_id, "node_id": node_id})
        self.context.events.publish(
            "join.reused", sentence, pool=None if node is None else node.pool, node_id=node_id, op_id=op_id
        )
        self.audit(
            AuditEvent(
                at=self._now(), who="unknown", scope="none", peer=caller.peer[:64], what=sentence[:500], status=401
            )
        )
        if node is None:
            return
        try:
            await self.executor.issuing.destroy(node, reason="JOIN_SECRET_REUSED", by="autoscaler")
        except GateClosed as closed:
            log.warning("Node %s stays although its secret was stolen: %s", name, closed.sentence)

    # -------------------------------------------------------------- with the node's own token

    async def _rejoin(self, request: RegisterRequest, join: Join, caller: Caller) -> NodeRecord:
        """After a restart of either side, and to renew credentials."""
        if caller.token is None or not self.issuer.tokens.proves(join.node_id, caller.token):
            raise AuthError("JOIN_SECRET_WRONG", why="the token is not that node's")
        node = self.context.records.node(join.node_id)
        if node is None:
            node = await self._readopt(join)
        leaving = self.executor.issuing.open_destroy(node.node_id)
        revoked = leaving is not None and leaving.reason == "JOIN_SECRET_REUSED"
        if node.legacy or revoked or node.state in _OVER or (node.state == "failed" and leaving is not None):
            raise RefusedError("NODE_GONE", why="the node is being removed")
        return await self._taken_in(node, request, join, caller, None)

    async def _readopt(self, join: Join) -> NodeRecord:
        """A node whose token we made and whose record is lost: the fleet's memory comes back from the fleet."""
        if was_destroyed(self.context.records, join.node_id) or join.pool not in self.pools():
            raise RefusedError("NODE_GONE", why="the node was removed, or its pool is not configured here")
        now = self._now()
        log.warning("ResourceManager: node %s of pool %s is known again by its token", join.node_id, join.pool)
        return await self.context.records.put_node(
            NodeRecord(node_id=join.node_id, pool=join.pool, state="joining", state_since=now, created_at=now)
        )

    async def adopt(self, node_id: str, *, peer: str) -> bool:
        """See ``orchestrator.control.NodeControl.adopt``.

        Raises:
            UnreachableError: NOT_LEADER.
        """
        if not self.lease.held:
            raise UnreachableError("NOT_LEADER", why="another orchestrator leads")
        return not was_destroyed(self.context.records, node_id) and await self.original.adopt(node_id, peer=peer)

    # -------------------------------------------------------------- answers

    def _credentials(self, node: NodeRecord, join: Join | None) -> Credentials:
        return self.issuer.issue(
            cluster_id=self.context.records.cluster_id,
            epoch=self.lease.epoch,
            node_id=node.node_id,
            public_key=None if join is None else join.nats_public_key,
            ttl_seconds=self._settings.node_credentials_ttl_seconds,
            now=self._now(),
        )

    def _answer(
        self, node: NodeRecord, caller: Caller, join: Join | None, credentials: Credentials | None = None
    ) -> RegisterResponse:
        """To a request in the original's form the original's three keys, nothing beside them."""
        interval = self._settings.heartbeat_interval_seconds
        base = f"{self.scheme}://{caller.host}/api/v1/nodes"
        self.context.metrics.node_registered()
        return RegisterResponse(
            node_id=node.node_id,
            heartbeat_interval=max(1, math.floor(interval)),
            endpoints=Endpoints(heartbeat_url=f"{base}/heartbeat", control_url=f"{base}/{node.node_id}/commands"),
            heartbeat_interval_seconds=None if join is None else interval,
            credentials=credentials,
        )

    @property
    def _settings(self) -> OrchestratorSettings:
        return self.context.settings()

    def _now(self) -> datetime:
        return self.context.clock.now()
