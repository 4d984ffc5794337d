"""Nodes: the persisted record, and what the API shows.

    requested ─▶ provisioning ─▶ booting ─▶ joining ─▶ active ◀──▶ unreachable ─▶ failed ─▶ gone
                                                │        │  ▲
                                                │        ▼  │ (resume)
                                                └─▶ warm draining ─▶ terminating ─▶ gone
    aside: quarantined (a machine that nobody here asked for)

What a node reports about itself is kept beside the state, never as the state.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from secbeat.wire.base import Count, Moment, NodeId, OpId, PoolName, Record, Wire
from secbeat.wire.heartbeat import NodeStatus
from secbeat.wire.jobs import Machine
from secbeat.wire.registration import Listening, NodeConfig
from secbeat.wire.webhook import Reason

NodeState = Literal[
    "requested",
    "provisioning",
    "booting",
    "joining",
    "active",
    "warm",
    "draining",
    "terminating",
    "unreachable",
    "failed",
    "gone",
    "quarantined",
]

# The original's spelling (secbeat-contracts 4); None: not listed without ?all=1.
WIRE_STATUS: dict[NodeState, NodeStatus | None] = {
    "requested": None,
    "provisioning": None,
    "booting": None,
    "joining": "Registered",
    "active": "Active",
    "warm": "Registered",
    "draining": "Draining",
    "terminating": "Terminating",
    "unreachable": "Dead",
    "failed": "Dead",
    "gone": None,
    "quarantined": None,
}


class NodeRecord(Record):
    """``node.<node_id>``: written only when something in it changes."""

    node_id: NodeId
    pool: PoolName
    state: NodeState
    state_since: Moment
    created_at: Moment
    op_id: OpId | None = Field(None, description="The create operation; None: adopted or registered by itself.")
    boot_id: NodeId | None = None
    legacy: bool = Field(False, description="Joined without a secret, in the original's form.")
    public_ip: str = Field("127.0.0.1", max_length=64)
    peer_address: str | None = Field(None, max_length=64, description="TCP peer of the registration.")
    config: NodeConfig = NodeConfig(node_type="mitigation-node", region=None, tags=[])
    listening: Listening = Listening()
    machine: Machine | None = None
    registered_at: Moment | None = None
    nats_public_key: str | None = None
    protected: bool = False
    destroy_op_id: OpId | None = None
    agent_version: str = Field("", max_length=64)
    by_hand: bool = Field(False, description="Its machine is a person's: it is drained, and never torn down by us.")

    @property
    def management_host(self) -> str | None:
        """The address that the orchestrator may dial, never one that the node claims.

        Where a provisioner makes the machine, it tells the address, and until then there is none: among several nodes
        of one host the peer's address may be another one's. Who came without a job is dialled where it called from.
        """
        if self.machine is not None:
            return self.machine.address
        awaited = self.op_id is not None and not (self.legacy or self.by_hand)
        return None if awaited else self.peer_address

    @property
    def management_port(self) -> int:
        return self.machine.management_port if self.machine is not None else self.listening.management_port


class NodeView(Wire):
    """One element of ``GET /api/v1/nodes``: the original's NodeInfo, then ours. Times are RFC 3339."""

    node_id: NodeId
    public_ip: str
    last_heartbeat: str
    status: NodeStatus | None
    metrics: dict[str, Any] | None = Field(None, description="The original's seven keys; cpu and memory in percent.")
    registered_at: str
    config: NodeConfig
    pool: PoolName
    state: NodeState
    state_since: str
    reported_status: NodeStatus | None = None
    op_id: OpId | None = None
    name: str | None = None
    address: str | None = None
    proxy_port: int | None = None
    management_port: int | None = None
    cpu: float | None = Field(None, description="Fraction.")
    in_flight: Count | None = None
    rps: float | None = None
    legacy: bool = False
    protected: bool = False
    silent: bool = False
    agent_version: str = ""


class NodeWhy(Wire):
    """``GET /api/v1/nodes/{id}/why``: why it is still there."""

    node_id: NodeId
    pool: PoolName
    state: NodeState
    sentence: str
    blocked_by: tuple[Reason, ...] = Field((), description="What keeps it from being removed now; empty: nothing.")
    leaves: str = Field("", description="When it will leave, as a sentence; empty if that cannot be said.")
    leaves_at: Moment | None = Field(None, description="The time of that, as far as the clock decides.")
    fix: str | None = Field(None, description="A command that removes it, or what keeps it.")
