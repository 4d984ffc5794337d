"""``GET /api/v1/nodes`` for ten thousand nodes without stalling the loop.

A row has the fields of :class:`secbeat.wire.nodes.NodeView` (a test holds the two together), the original's first. It
is made when it is asked for and kept until the node changes; chunks are small: heartbeats are read between two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from msgspec import Raw

from orchestrator.fleet.node import NEVER, Node
from orchestrator.fleet.packing import unpack
from secbeat.clock import Clock
from secbeat.wire.heartbeat import NodeStatus
from secbeat.wire.nodes import WIRE_STATUS, NodeState

CHUNK = 250
KEPT = 20_000  # a larger fleet's JSON is made anew each time: kept, it would double the registry


_NONE: frozenset[str] = frozenset()
HIDDEN: frozenset[str] = frozenset(state for state, status in WIRE_STATUS.items() if status is None)
_FIRST, _RECORD = b'{"node_id":', b'"registered_at":'
_LEAST_LOAD = len(b',"last_heartbeat":"2026-11-25T03:00:00.000Z","status":null,"metrics":null,')
_MILLISECONDS = tuple(f"{millisecond:03d}Z" for millisecond in range(1000))


class _Metrics(msgspec.Struct, gc=False):
    """The original's seven; cpu and memory in percent. Of what our nodes do not count, it says 0."""

    cpu_usage: float
    memory_usage: float
    packets_per_second: int
    active_connections: int
    total_requests: int
    ddos_blocks: int
    waf_blocks: int


class _Identity(msgspec.Struct, gc=False):
    """The beginning of a row: never changes."""

    node_id: str
    public_ip: str


class _Record(msgspec.Struct, gc=False):
    """Changes with the record."""

    registered_at: str
    config: Raw
    pool: str
    state: NodeState
    state_since: str
    op_id: str | None
    name: str | None
    address: str | None
    proxy_port: int | None
    management_port: int | None
    legacy: bool
    protected: bool
    agent_version: str


class _Row(msgspec.Struct, gc=False):
    """A row, ready to be written: what never changes and what changes with the record is text already.

    ``node_id`` goes on to the end of ``public_ip``, and ``registered_at`` to the end of ``agent_version``: each holds
    its own value and all pairs up to the next field.
    """

    node_id: Raw
    last_heartbeat: str
    status: NodeStatus | None
    metrics: _Metrics | None
    registered_at: Raw
    reported_status: NodeStatus | None
    cpu: float | None
    in_flight: int | None
    rps: float | None
    silent: bool


_encoder = msgspec.json.Encoder()


class Times:
    """RFC 3339 text, as one listing needs it: the text of a whole second is made once."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock.monotonic()
        self._offset = clock.now().timestamp() - self.now
        self._seconds: dict[int, str] = {}

    def text(self, monotonic: float) -> str:
        """A monotonic time by the wall clock of now: milliseconds and ``Z``, as ``secbeat.clock.wire_time``."""
        milliseconds = int((monotonic + self._offset) * 1000 + 0.5)
        known = self._seconds.get(milliseconds // 1000)
        return self.wall(milliseconds) if known is None else known + _MILLISECONDS[milliseconds % 1000]

    def wall(self, milliseconds: int) -> str:
        """The same of milliseconds since 1970."""
        second = milliseconds // 1000
        known = self._seconds.get(second)
        if known is None:
            known = self._seconds[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return known + _MILLISECONDS[milliseconds - second * 1000]


def chunks(nodes: Sequence[Node], clock: Clock, *, include_all: bool) -> Iterator[bytes]:
    """The nodes as a JSON array, ``CHUNK`` nodes at a time."""
    yield b"["
    keep, first = len(nodes) <= KEPT, True
    for start in range(0, len(nodes), CHUNK):
        rows = _rows(nodes[start : start + CHUNK], Times(clock), keep=keep, hidden=_NONE if include_all else HIDDEN)
        if rows:
            # An empty first element gives the comma that joins the chunk to the one before.
            yield b",".join(rows if first else [b"", *rows])
            first = False
    yield b"]"


def _rows(nodes: Sequence[Node], times: Times, *, keep: bool, hidden: frozenset[str]) -> list[bytes]:
    now, rows, encode = times.now, list[bytes](), _encoder.encode
    for node in nodes:
        # Silence comes without a change of the node: the row of a silent node is made anew each time.
        if not node.dirty and node.deadline >= now and (kept := node.cached) is not None:
            rows.append(kept)
        elif node.state not in hidden:
            line = encode(_row(node, times))
            rows.append(line)
            if keep and node.state not in HIDDEN:
                node.cached, node.dirty = line, False
    return rows


def render(node: Node, times: Times) -> bytes:
    """One node's JSON."""
    return _encoder.encode(_row(node, times))


def _row(node: Node, times: Times) -> _Row:
    """Of a kept row, only what a heartbeat may change is made anew."""
    kept = node.cached
    if kept is None:
        identity, record = _static(node, times)
        node.spans = _share(len(_FIRST) + len(identity), len(record))
    else:
        end, size = node.spans
        identity = kept[len(_FIRST) : end]
        # A quoted word before a colon is a key: no value of the row can look like this.
        start = kept.index(_RECORD, end + _LEAST_LOAD) + len(_RECORD)
        record = kept[start : start + size]
    received = node.received
    heard = times.text(received) if received != NEVER else _registered(node, times)
    status, silent = WIRE_STATUS[node.state], node.deadline < times.now
    if node.metrics_received == NEVER:
        return _Row(Raw(identity), heard, status, None, Raw(record), node.reported_status, None, None, None, silent)
    return _Row(
        Raw(identity),
        heard,
        status,
        _metrics(node),
        Raw(record),
        node.reported_status,
        # Six and three decimals; ``round`` takes three times as long.
        None if node.cpu is None else int(node.cpu * 1e6 + 0.5) / 1e6,
        node.in_flight,
        int(node.rps * 1e3 + 0.5) / 1e3,
        silent,
    )


@lru_cache(maxsize=4096)
def _share(end: int, size: int) -> tuple[int, int]:
    """Where a row's identity ends and how long its record is: one object for all rows of that form."""
    return end, size


def _static(node: Node, times: Times) -> tuple[bytes, bytes]:
    """The parts of the row that come from the record."""
    packed = unpack(node.packed, node.pool, node.node_id)
    since, machine = packed.state_since // 1000, packed.machine
    proxy_port, management_port, _ = node.shared.listening
    record = _Record(
        registered_at=times.wall(since if packed.registered_at is None else packed.registered_at // 1000),
        config=Raw(node.shared.config),
        pool=node.pool,
        state=node.state,
        state_since=times.wall(since),
        op_id=packed.op_id,
        # What the provisioner reported; else what the node registered with.
        name=None if machine is None else machine.name,
        address=packed.peer_address if machine is None else machine.address,
        proxy_port=proxy_port if machine is None else machine.proxy_port,
        management_port=management_port if machine is None else machine.management_port,
        legacy=node.legacy,
        protected=node.protected,
        agent_version=node.shared.agent_version,
    )
    identity = _encoder.encode(_Identity(node.node_id, packed.public_ip))
    return identity[len(_FIRST) : -1], _encoder.encode(record)[len(_RECORD) + 1 : -1]


def _registered(node: Node, times: Times) -> str:
    """The original shows the time of registration until the first heartbeat."""
    packed = unpack(node.packed, node.pool, node.node_id)
    return times.wall((packed.state_since if packed.registered_at is None else packed.registered_at) // 1000)


def _metrics(node: Node) -> _Metrics:
    legacy, cpu, memory = node.legacy_metrics, node.cpu, node.memory
    # Percent with six decimals.
    cpu_usage = 0.0 if cpu is None else int(cpu * 1e8 + 0.5) / 1e6
    memory_usage = 0.0 if memory is None else int(memory * 1e8 + 0.5) / 1e6
    if legacy is None:
        return _Metrics(cpu_usage, memory_usage, 0, node.connections, int(node.requests), 0, 0)
    return _Metrics(
        cpu_usage,
        memory_usage,
        legacy.packets_per_second,
        node.connections,
        int(node.requests),
        legacy.ddos_blocks,
        legacy.waf_blocks,
    )
