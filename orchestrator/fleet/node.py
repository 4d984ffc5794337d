"""One node in memory, lean enough for a hundred thousand of them.

A pydantic record costs four kilobytes. What the decision tick and the heartbeat path read lies in slots; the rest of
the record is kept packed, and what many nodes have in common is kept once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from secbeat.wire.heartbeat import NodeStatus
from secbeat.wire.nodes import NodeRecord, NodeState
from secbeat.wire.registration import NodeConfig

NEVER = float("-inf")
_IN_SLOTS = {"node_id", "pool", "state", "config", "legacy", "protected", "agent_version"}
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Shared(msgspec.Struct, frozen=True):
    """What many nodes have in common; ``config`` is the JSON of the original's config object."""

    config: bytes
    digest: str | None
    agent_version: str


class ColdListening(msgspec.Struct, frozen=True, gc=False):
    """See :class:`secbeat.wire.registration.Listening`."""

    proxy_port: int = 8443
    management_port: int = 9999


_LISTENING = ColdListening()


class Cold(msgspec.Struct, gc=False):
    """The part of the packed record that a listing shows; times are RFC 3339 text."""

    state_since: str
    public_ip: str = "127.0.0.1"
    registered_at: str | None = None
    op_id: str | None = None
    boot_id: str | None = None
    destroy_op_id: str | None = None
    peer_address: str | None = None
    machine: ColdMachine | None = None
    listening: ColdListening = _LISTENING


class ColdMachine(msgspec.Struct, gc=False):
    """See :class:`secbeat.wire.jobs.Machine`."""

    name: str
    address: str
    proxy_port: int = 8443
    management_port: int = 9999


class LegacyCounters(msgspec.Struct, frozen=True, gc=False):
    """The original's counters, as its last heartbeat had them."""

    packets_per_second: int
    total_requests: int
    ddos_blocks: int
    waf_blocks: int


class Node:
    """A node's record and its latest heartbeat.

    Times are the monotonic clock's, in seconds, unless said otherwise; cpu and memory are fractions. ``record`` is
    built at each access (20 µs): loops over a fleet read the slots. Only the registry writes.
    """

    __slots__ = (
        "blocklist_version",
        "boot_id",
        "cached",
        "cold",
        "connections",
        "cpu",
        "deadline",
        "errors_per_second",
        "in_flight",
        "interval",
        "joined",
        "leaving",
        "legacy",
        "legacy_metrics",
        "memory",
        "metrics_received",
        "metrics_until",
        "node_id",
        "pool",
        "previous_boot_id",
        "protected",
        "received",
        "reported_status",
        "requests",
        "rps",
        "seq",
        "shared",
        "state",
    )

    node_id: str
    pool: str
    state: NodeState
    legacy: bool
    protected: bool
    leaving: bool  # a destroy operation exists
    joined: float  # when it registered, for the warm-up
    cold: bytes
    shared: Shared

    boot_id: str | None  # of the latest heartbeat; the record's until there is one
    previous_boot_id: str | None
    seq: int  # -1: no heartbeat of this boot yet
    reported_status: NodeStatus | None
    received: float  # the latest proof of life; NEVER: none since this orchestrator knows the node
    interval: float  # learned seconds between heartbeats
    deadline: float  # silent after this

    cpu: float | None
    memory: float | None
    connections: int
    in_flight: int
    rps: float
    errors_per_second: float
    requests: float  # estimate: the reported rates, summed over time
    metrics_received: float
    metrics_until: float  # the metrics are stale after this
    legacy_metrics: LegacyCounters | None
    blocklist_version: int
    cached: bytes | None

    def __init__(self, node_id: str, *, interval: float, deadline: float) -> None:
        self.node_id = node_id
        self.boot_id = self.previous_boot_id = None
        self.seq = -1
        self.reported_status = None
        self.received = NEVER
        self.interval = interval
        self.deadline = deadline
        self.cpu = self.memory = None
        self.connections = self.in_flight = 0
        self.rps = self.errors_per_second = self.requests = 0.0
        self.metrics_received = self.metrics_until = NEVER
        self.legacy_metrics = None
        self.blocklist_version = 0
        self.cached = None

    @property
    def heard(self) -> bool:
        """Whether there was any proof of life since this orchestrator knows the node."""
        return self.received != NEVER

    @property
    def record(self) -> NodeRecord:
        """The record as it was put; its times have milliseconds, as in the store."""
        fields: dict[str, Any] = _unpack(self.cold)
        if self.shared.digest is not None:
            fields["machine"]["blueprint_digest"] = self.shared.digest
        return NodeRecord.model_validate(
            {
                **fields,
                "node_id": self.node_id,
                "pool": self.pool,
                "state": self.state,
                "config": NodeConfig.model_validate_json(self.shared.config),
                "legacy": self.legacy,
                "protected": self.protected,
                "agent_version": self.shared.agent_version,
            }
        )


def pack(record: NodeRecord) -> tuple[bytes, Shared]:
    """The record without what :class:`Node` has in slots."""
    fields = record.model_dump(mode="json", exclude=_IN_SLOTS, exclude_defaults=True)
    machine = fields.get("machine")
    digest = machine.pop("blueprint_digest", None) if machine is not None else None
    shared = Shared(config=record.config.encode(), digest=digest, agent_version=record.agent_version)
    return _pack(fields), shared


unpack_cold = msgspec.msgpack.Decoder(Cold).decode
