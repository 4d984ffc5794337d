"""One node in memory, lean enough for a hundred thousand of them.

What the decision tick and the heartbeat path read lies in slots; the rest of the record is kept packed.
"""

from __future__ import annotations

import msgspec

from orchestrator.fleet import packing
from orchestrator.fleet.packing import Shared
from secbeat.wire.heartbeat import NodeStatus
from secbeat.wire.nodes import NodeRecord, NodeState

NEVER = float("-inf")


class LegacyCounters(msgspec.Struct, frozen=True, gc=False):
    """The original's counters, as its last heartbeat had them."""

    packets_per_second: int
    total_requests: int
    ddos_blocks: int
    waf_blocks: int


class _Hot:
    """What ticks and listings read of each node, side by side: a fleet does not fit in the processor's cache."""

    __slots__ = (
        "cached",
        "connections",
        "cpu",
        "deadline",
        "dirty",
        "joined",
        "memory",
        "metrics_until",
        "protected",
        "spans",
        "state",
    )


class Node(_Hot):
    """A node's record and its latest heartbeat.

    Times are the monotonic clock's, in seconds, unless said otherwise; cpu and memory are fractions. ``record`` is
    built at each access (20 µs): loops over a fleet read the slots. Only the registry writes.
    """

    __slots__ = (
        "blocklist_version",
        "boot_id",
        "errors_per_second",
        "in_flight",
        "interval",
        "leaving",
        "legacy",
        "legacy_metrics",
        "metrics_received",
        "node_id",
        "packed",
        "pool",
        "previous_boot_id",
        "received",
        "recorded_boot_id",
        "reported_status",
        "requests",
        "rps",
        "seq",
        "shared",
    )

    node_id: str
    pool: str
    state: NodeState
    legacy: bool
    protected: bool
    leaving: bool  # a destroy operation exists
    joined: float  # when it registered, for the warm-up
    packed: bytes  # the rest of the record
    shared: Shared
    recorded_boot_id: str | None  # the record's

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
    cached: bytes | None  # the node's JSON in a listing; None: the record changed
    spans: tuple[int, int]  # of ``cached``: where the identity ends, how long the record is
    dirty: bool  # a heartbeat came since, or there is none

    def __init__(self, node_id: str, *, interval: float, deadline: float) -> None:
        self.node_id = node_id
        self.boot_id = self.previous_boot_id = self.recorded_boot_id = None
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
        self.spans = (0, 0)
        self.dirty = True

    @property
    def heard(self) -> bool:
        """Whether there was any proof of life since this orchestrator knows the node."""
        return self.received != NEVER

    @property
    def record(self) -> NodeRecord:
        """The record as it was put."""
        return NodeRecord.model_validate(
            {
                **packing.fields(packing.unpack(self.packed, self.pool, self.node_id), self.shared),
                "node_id": self.node_id,
                "pool": self.pool,
                "state": self.state,
                "boot_id": self.recorded_boot_id,
                "legacy": self.legacy,
                "protected": self.protected,
            }
        )
