"""``GET /api/v1/nodes`` for ten thousand nodes without stalling the loop.

A node's JSON is made when it is asked for and kept until the node changes. Chunks are small, so that heartbeats are
read between two of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from orchestrator.fleet.node import NEVER, Cold, Node, unpack_cold
from secbeat.clock import Clock
from secbeat.wire.heartbeat import NodeStatus
from secbeat.wire.nodes import WIRE_STATUS, NodeState

CHUNK = 500
KEPT = 20_000  # a larger fleet's JSON is made anew each time: kept, it would double the registry


class _Metrics(msgspec.Struct, gc=False):
    """The original's seven; cpu and memory in percent. Of what our nodes do not count, it says 0."""

    cpu_usage: float
    memory_usage: float
    packets_per_second: int
    active_connections: int
    total_requests: int
    ddos_blocks: int
    waf_blocks: int


class _Row(msgspec.Struct, gc=False):
    """:class:`secbeat.wire.nodes.NodeView`, field by field in its order (a test holds the two together)."""

    node_id: str
    public_ip: str
    last_heartbeat: str
    status: NodeStatus | None
    metrics: _Metrics | None
    registered_at: str
    config: msgspec.Raw
    pool: str
    state: NodeState
    state_since: str
    reported_status: NodeStatus | None
    op_id: str | None
    name: str | None
    address: str | None
    proxy_port: int | None
    management_port: int | None
    cpu: float | None
    in_flight: int | None
    rps: float | None
    legacy: bool
    protected: bool
    silent: bool
    agent_version: str


_encode = msgspec.json.Encoder().encode


class Times:
    """RFC 3339 text of monotonic times, as one listing needs it: the text of a whole second is made once."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock.monotonic()
        self._offset = clock.now().timestamp() - self.now
        self._seconds: dict[int, str] = {}

    def text(self, monotonic: float) -> str:
        """Milliseconds and ``Z``, as ``secbeat.clock.wire_time`` has it."""
        second, millisecond = divmod(int((monotonic + self._offset) * 1000), 1000)
        known = self._seconds.get(second)
        if known is None:
            known = self._seconds[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{known}{millisecond:03d}Z"


def chunks(nodes: Sequence[Node], clock: Clock, *, include_all: bool) -> Iterator[bytes]:
    """The nodes as a JSON array, ``CHUNK`` nodes at a time."""
    yield b"["
    keep, first = len(nodes) <= KEPT, True
    for start in range(0, len(nodes), CHUNK):
        rows = _rows(nodes[start : start + CHUNK], Times(clock), include_all=include_all, keep=keep)
        if rows:
            yield b",".join(rows) if first else b"," + b",".join(rows)
            first = False
    yield b"]"


def _rows(nodes: Sequence[Node], times: Times, *, include_all: bool, keep: bool) -> list[bytes]:
    now = times.now
    rows = []
    for node in nodes:
        if not include_all and WIRE_STATUS[node.state] is None:
            continue
        data = node.cached
        if data is None or node.deadline < now:  # silence comes without a change of the node: it is never kept
            data = render(node, times)
            if keep and node.deadline >= now:
                node.cached = data
        rows.append(data)
    return rows


def render(node: Node, times: Times) -> bytes:
    """One node's JSON."""
    cold = unpack_cold(node.cold)
    address = _Addresses.of(cold)
    loaded = node.metrics_received != NEVER
    return _encode(
        _Row(
            node_id=node.node_id,
            public_ip=cold.public_ip,
            last_heartbeat=times.text(node.received) if node.heard else cold.registered_at or cold.state_since,
            status=WIRE_STATUS[node.state],
            metrics=_metrics(node) if loaded else None,
            registered_at=cold.registered_at or cold.state_since,
            config=msgspec.Raw(node.shared.config),
            pool=node.pool,
            state=node.state,
            state_since=cold.state_since,
            reported_status=node.reported_status,
            op_id=cold.op_id,
            name=address.name,
            address=address.address,
            proxy_port=address.proxy_port,
            management_port=address.management_port,
            cpu=node.cpu if loaded else None,
            in_flight=node.in_flight if loaded else None,
            rps=node.rps if loaded else None,
            legacy=node.legacy,
            protected=node.protected,
            silent=node.deadline < times.now,
            agent_version=node.shared.agent_version,
        )
    )


class _Addresses(NamedTuple):
    name: str | None
    address: str | None
    proxy_port: int | None
    management_port: int | None

    @classmethod
    def of(cls, cold: Cold) -> _Addresses:
        """Those of the machine that the provisioner reported; else those of the registration."""
        machine = cold.machine
        if machine is not None:
            return cls(machine.name, machine.address, machine.proxy_port, machine.management_port)
        listening = cold.listening
        return cls(None, cold.peer_address, listening.proxy_port, listening.management_port)


def _metrics(node: Node) -> _Metrics:
    legacy = node.legacy_metrics
    return _Metrics(
        cpu_usage=round((node.cpu or 0.0) * 100, 6),
        memory_usage=round((node.memory or 0.0) * 100, 6),
        packets_per_second=legacy.packets_per_second if legacy is not None else 0,
        active_connections=node.connections,
        total_requests=int(node.requests),
        ddos_blocks=legacy.ddos_blocks if legacy is not None else 0,
        waf_blocks=legacy.waf_blocks if legacy is not None else 0,
    )
