"""The node registry: records put by the core, heartbeats applied as they come.

Heartbeats stay in memory. Liveness is the monotonic time of receipt, never a time that a node claims; what a node says
of its own status is kept beside the state, and reaches the core as a signal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal

from orchestrator.fleet import listing, salvage, stats
from orchestrator.fleet.node import LegacyCounters, Node
from orchestrator.fleet.order import Order
from orchestrator.fleet.packing import Shared, pack
from secbeat import ids
from secbeat.clock import Clock
from secbeat.subjects import heartbeat as heartbeat_subject
from secbeat.wire.base import VERSION
from secbeat.wire.heartbeat import HeartbeatFrame, LegacyHeartbeat, NodeStatus, decode_frame
from secbeat.wire.nodes import NodeRecord, NodeState, NodeView

Signal = Literal["joined_heartbeat", "draining", "terminating", "recovered", "rebooted"]

LEGACY_INTERVAL = 60.0  # seconds; the original's slowest (secbeat-contracts 5), until the node's own is learned
MISSED = 3  # intervals without a heartbeat before a node is silent
FLOOR = 3.0  # seconds; never silent sooner
_LONGEST = 120.0  # seconds; a longer interval is not learned, or a dying node would teach its own silence
_PREFIX = len(heartbeat_subject(""))
_SHARED_KINDS = 4096  # beyond that many different ones, nothing is gained by sharing
_JOINING = frozenset({"requested", "provisioning", "booting", "joining"})
_DEAD = frozenset({"unreachable", "failed"})


def legacy_unit(setting: Literal["auto", "percent", "fraction"]) -> Literal["percent", "fraction"]:
    """The unit of CPU in the original's heartbeat, from a pool's ``legacy_cpu_unit``; never guessed from a value."""
    return "fraction" if setting == "fraction" else "percent"


class Registry:
    """All known nodes.

    ``on_signal(node_id, signal)`` is called from within ``on_frame`` and must return quickly. A signal repeats with
    every heartbeat for as long as the node's state does not fit what was heard, so a lost one is made good:
    ``joined_heartbeat`` (not yet active), ``recovered`` (unreachable or failed, and it beats), ``draining`` and
    ``terminating`` (it says so, and the state does not); ``rebooted`` comes once per new boot_id.
    """

    def __init__(
        self, *, clock: Clock, default_interval: float, on_signal: Callable[[str, Signal], None] | None = None
    ) -> None:
        self.on_signal = on_signal
        self._clock = clock
        self._monotonic = clock.monotonic
        self._nodes: dict[str, Node] = {}
        self._pools: dict[str, dict[str, Node]] = {}
        self._shared: dict[Shared, Shared] = {}
        self._order = Order()
        self._received = self._malformed = self._stale = self._unknown = self._bad_field = self._newer = 0
        self.default_interval = default_interval

    # ------------------------------------------------------------------ records

    @property
    def default_interval(self) -> float:
        """Seconds between heartbeats that nodes are told; also the least that is learned."""
        return self._default_interval

    @default_interval.setter
    def default_interval(self, seconds: float) -> None:
        self._default_interval = seconds
        self._floor = max(MISSED * seconds, FLOOR)
        self._longest = max(_LONGEST, 4 * seconds)

    def put(self, record: NodeRecord) -> Node:
        """Know this node, or know it anew; its heartbeats so far stay unless the record brings a new ``boot_id``."""
        node = self._nodes.get(record.node_id)
        if node is None:
            interval = max(LEGACY_INTERVAL, self._default_interval) if record.legacy else self._default_interval
            node = Node(record.node_id, interval=interval, deadline=self._monotonic() + max(MISSED * interval, FLOOR))
            node.boot_id = record.boot_id
        else:
            if record.boot_id not in {node.recorded_boot_id, node.boot_id}:
                node.previous_boot_id, node.boot_id, node.seq = node.boot_id, record.boot_id, -1
            if node.pool != record.pool:
                self._leave(node)
        node.pool = self._pool_name(record.pool)
        node.state = record.state
        node.legacy, node.protected = record.legacy, record.protected
        node.leaving = record.destroy_op_id is not None
        node.joined = self._monotonic_of(record.registered_at or record.state_since)
        node.recorded_boot_id = node.boot_id if node.boot_id == record.boot_id else record.boot_id
        node.packed, shared = pack(record)
        node.shared = self._share(shared)
        node.cached, node.dirty = None, True
        if record.node_id not in self._nodes:
            self._order.came(record.node_id)
        self._nodes[record.node_id] = node
        self._pools.setdefault(node.pool, {})[record.node_id] = node
        return node

    def drop(self, node_id: str) -> None:
        """Forget a node; forgetting an unknown one is no error."""
        if (node := self._nodes.pop(node_id, None)) is not None:
            self._order.went()
            self._leave(node)

    def get(self, node_id: str) -> Node | None:
        return self._nodes.get(node_id)

    def nodes(self, pool: str | None = None) -> Iterable[Node]:
        """The nodes of one pool, or all; put and drop nothing while iterating."""
        return self._nodes.values() if pool is None else self._pools.get(pool, {}).values()

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    # ------------------------------------------------------------------ heartbeats

    def on_frame(self, subject: str, payload: bytes) -> None:
        """Apply one heartbeat from ``secbeat.hb.<id>``. Never raises; whatever is not applied is counted."""
        self._received += 1
        try:
            frame = decode_frame(payload)
        except Exception:  # noqa: BLE001 - hostile bytes: whatever the decoder says, the field-by-field reader decides
            self._salvage(subject, payload)
            return
        node = self._nodes.get(frame.node_id)
        if node is None:
            self._unknown += 1
            return
        if subject[_PREFIX:] != frame.node_id:
            self._malformed += 1
            return
        if frame.v > VERSION:
            self._newer += 1
            self._beat(node, self._monotonic())
            return
        if frame.boot_id == node.boot_id:
            if frame.seq <= node.seq:
                self._stale += 1
                return
        elif not self._reboot(node, frame.boot_id):
            return
        self._apply(node, frame)

    def _apply(self, node: Node, frame: HeartbeatFrame) -> None:
        """The hot path: a heartbeat that is new and whole."""
        now = self._monotonic()
        metrics = frame.metrics
        interval = node.interval
        gap = now - node.received
        # Comparisons instead of min() and max(): two calls less, a twentieth of the whole.
        if gap > interval * 1.5:  # noqa: PLR1730 - after an outage the gap is no interval: growth is learned in steps
            gap = interval * 1.5
        if node.seq >= 0:
            if gap > interval * 1.1 or interval > self._default_interval:
                node.interval = interval = self._learned(interval, gap)
            node.requests += metrics.rps * gap
        node.seq = frame.seq
        patience = interval * MISSED
        if patience < self._floor:  # noqa: PLR1730 - see above
            patience = self._floor
        deadline = now + patience
        node.cpu = metrics.cpu
        node.memory = metrics.memory
        node.connections = metrics.connections
        node.in_flight = metrics.in_flight
        node.rps = metrics.rps
        node.errors_per_second = metrics.errors_per_second or 0.0
        node.blocklist_version = frame.blocklist_version
        # The same objects twice, on purpose: a float costs 24 bytes.
        node.received = node.metrics_received = now
        node.deadline = node.metrics_until = deadline
        node.dirty = True
        status = frame.status
        node.reported_status = status
        if status != "Active" or node.state != "active":
            self._attend(node, status)

    def on_legacy(self, heartbeat: LegacyHeartbeat, *, unit: Literal["percent", "fraction"]) -> bool:
        """Apply one heartbeat of the original's form; ``unit`` is that of cpu and memory.

        A field that is out of range is not applied. The original's cpu is an average since boot and nearly constant,
        so ``rps`` is taken from the difference of two ``total_requests``. Returns False for an unknown node.
        """
        self._received += 1
        node = self._nodes.get(heartbeat.node_id)
        if node is None:
            self._unknown += 1
            return False
        now = self._monotonic()
        seconds = now - node.received
        self._beat(node, now)
        self._apply_legacy(node, heartbeat, seconds=seconds, scale=0.01 if unit == "percent" else 1.0)
        node.seq = max(node.seq, 0)
        node.reported_status = heartbeat.status
        self._attend(node, heartbeat.status)
        return True

    def touch(self, node_id: str) -> None:
        """Proof of life without a body that could be applied; of an unknown node it means nothing."""
        if (node := self._nodes.get(node_id)) is not None:
            self._beat(node, self._monotonic())

    # ------------------------------------------------------------------ liveness

    def silent(self, node: Node, now: float) -> bool:
        """Whether the node missed three of its intervals; ``now`` is monotonic. Never within the first ones."""
        return node.deadline < now

    def heard_within(self, node: Node, seconds: float, now: float) -> bool:
        """Whether there was a proof of life in the last so many seconds."""
        return now - node.received <= seconds

    def heard_at(self, node: Node) -> datetime | None:
        """The wall-clock time of the latest proof of life; None if there was none yet."""
        return None if not node.heard else self._wall(node.received)

    # ------------------------------------------------------------------ views

    def listing(self, nodes: Sequence[Node] | None = None, *, include_all: bool = False) -> Iterator[bytes]:
        """A JSON array of :class:`NodeView` in chunks of at most 250 nodes; let the loop run between two chunks.

        ``nodes`` None: all. Those without a spelling of the original's are left out unless ``include_all``. Nodes may
        be put and dropped while the chunks are taken: the list is that of the first one.
        """
        chosen = list(self._nodes.values()) if nodes is None else nodes
        return listing.chunks(chosen, self._clock, include_all=include_all)

    def chosen(self, *, pool: str | None = None, states: Container[NodeState] | None = None) -> list[Node]:
        """The nodes of one pool, or all, in one of ``states`` or any."""
        found = self.nodes(pool)
        return list(found) if states is None else [node for node in found if node.state in states]

    def page(
        self,
        *,
        limit: int,
        after: str = "",
        pool: str | None = None,
        states: Container[NodeState] | None = None,
        include_all: bool = False,
    ) -> tuple[list[Node], str | None]:
        """The next ``limit`` nodes by node_id behind ``after``, and the node_id to continue behind; None at the end."""
        found: list[Node] = []
        order = self._order.current(self._nodes)
        for place in range(bisect_right(order, after), len(order)):
            node = self._nodes[order[place]]
            if pool not in {None, node.pool} or not (states is None or node.state in states):
                continue
            if not include_all and node.state in listing.HIDDEN:
                continue
            if len(found) == limit:
                return found, found[-1].node_id
            found.append(node)
        return found, None

    def view(self, node_id: str) -> NodeView | None:
        """One node as the listing shows it."""
        node = self._nodes.get(node_id)
        if node is None:
            return None
        return NodeView.model_validate_json(listing.render(node, listing.Times(self._clock)))

    def stats(self) -> dict[str, int | float]:
        """The original's ``fleet/stats``: its keys, percent."""
        return stats.fleet(self._nodes.values(), self._monotonic())

    @property
    def counters(self) -> dict[str, int]:
        """Heartbeats received, and those of them that were not (wholly) applied, by reason."""
        return {
            "received": self._received,
            "malformed": self._malformed,
            "stale": self._stale,
            "unknown": self._unknown,
            "bad_field": self._bad_field,
            "newer_version": self._newer,
        }

    # ------------------------------------------------------------------ inside

    def _beat(self, node: Node, now: float) -> None:
        """Proof of life."""
        if node.heard:
            gap = min(now - node.received, node.interval * 1.5)
            node.interval = self._learned(node.interval, gap)
        node.received = now
        node.deadline = now + max(MISSED * node.interval, self._floor)
        node.dirty = True

    def _learned(self, interval: float, gap: float) -> float:
        """The interval after one more ``gap``; at least the default, and then that very object: it costs no memory."""
        learned = interval + (gap - interval) * 0.25
        return min(learned, self._longest) if learned > self._default_interval else self._default_interval

    def _reboot(self, node: Node, boot_id: str) -> bool:
        """Whether a frame of another boot is to be applied: not one of the boot before, nor one of no boot at all."""
        if boot_id == node.previous_boot_id:
            self._stale += 1
            return False
        try:
            ids.check_uuid(boot_id)
        except ValueError:
            self._bad_field += 1
            self._beat(node, self._monotonic())
            return False
        first = node.boot_id is None
        node.previous_boot_id, node.boot_id, node.seq = node.boot_id, boot_id, -1
        if not first:
            self._signal(node, "rebooted")
        return True

    def _attend(self, node: Node, status: NodeStatus) -> None:
        """Tell the core when state and report do not fit.

        ``Dead`` is a stuck flag of the original's node, and so is its ``Draining``: proof of life, nothing more.
        """
        if status == "Terminating":
            if node.state != "terminating":
                self._signal(node, "terminating")
        elif node.state in _JOINING:
            self._signal(node, "joined_heartbeat")
        elif node.state in _DEAD:
            self._signal(node, "recovered")
        elif status == "Draining" and not node.legacy and node.state in {"active", "warm"}:
            self._signal(node, "draining")

    def _signal(self, node: Node, signal: Signal) -> None:
        if self.on_signal is not None:
            self.on_signal(node.node_id, signal)

    def _salvage(self, subject: str, payload: bytes) -> None:
        """A frame that did not decode: keep what is sound of it."""
        found = salvage.read(payload)
        node_id = subject[_PREFIX:]
        if found is None or found.node_id != node_id:
            self._malformed += 1
            return
        node = self._nodes.get(node_id)
        if node is None:
            self._unknown += 1
            return
        self._bad_field += 1
        if found.boot_id is None or found.seq is None:  # no telling whether its numbers are the newest
            self._beat(node, self._monotonic())
            return
        if found.boot_id == node.boot_id:
            if found.seq <= node.seq:
                self._stale += 1
                return
        elif not self._reboot(node, found.boot_id):
            return
        now = self._monotonic()
        self._beat(node, now)
        node.seq = found.seq
        if found.apply(node):
            node.metrics_received, node.metrics_until = now, node.deadline
        if found.status is not None:
            node.reported_status = found.status
            self._attend(node, found.status)

    def _apply_legacy(self, node: Node, heartbeat: LegacyHeartbeat, *, seconds: float, scale: float) -> None:
        metrics = heartbeat.metrics
        cpu, memory = (salvage.fraction(value * scale) for value in (metrics.cpu_usage, metrics.memory_usage))
        if cpu is None or memory is None:
            self._bad_field += 1
        if memory is not None:
            node.memory = memory
        if cpu is not None:
            node.cpu = cpu
            node.metrics_received, node.metrics_until = node.received, node.deadline
        node.connections = metrics.active_connections
        last = node.legacy_metrics
        if last is not None and seconds > 0:
            # A counter that falls was started anew.
            node.rps = max(0, metrics.total_requests - last.total_requests) / seconds
        node.requests = float(metrics.total_requests)
        node.legacy_metrics = LegacyCounters(
            metrics.packets_per_second, metrics.total_requests, metrics.ddos_blocks, metrics.waf_blocks
        )

    def _leave(self, node: Node) -> None:
        pool = self._pools[node.pool]
        pool.pop(node.node_id, None)
        if not pool:
            del self._pools[node.pool]

    def _pool_name(self, name: str) -> str:
        known = self._pools.get(name)
        return next(iter(known.values())).pool if known else name

    def _share(self, shared: Shared) -> Shared:
        if len(self._shared) >= _SHARED_KINDS:
            return self._shared.get(shared, shared)
        return self._shared.setdefault(shared, shared)

    def _monotonic_of(self, moment: datetime) -> float:
        return self._monotonic() - (self._clock.now() - moment).total_seconds()

    def _wall(self, monotonic: float) -> datetime:
        now = self._clock.now()
        return datetime.fromtimestamp(now.timestamp() - (self._monotonic() - monotonic), now.tzinfo)
