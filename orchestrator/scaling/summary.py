"""One pass over a pool's nodes: everything that a decision may look at, bounded whatever the size of the fleet."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.fleet.node import Node
from orchestrator.scaling.building import build
from secbeat.settings import PolicySettings
from secbeat.wire.decisions import Candidate, PoolSnapshot

_BATCH = 48
NAMED = 16  # nodes that a snapshot names at most, of each kind
_PENDING = ("requested", "provisioning", "booting", "joining")
_RANK = {"WARMING_UP": 1, "STALE_METRICS": 2, "SILENT": 3, "PROTECTED": 4}


def allowed_silence(known: int) -> int:
    """So many of ``known`` nodes may be silent or dead before it is an outage: max(1, ceil 20 %)."""
    return max(1, -(-known // 5))


def summarise(
    nodes: Iterable[Node], *, pool: str, policy: PolicySettings, now: float, candidates: int | None = None
) -> PoolSnapshot:
    """What one evaluation sees of ``pool``; ``nodes`` are its nodes, ``now`` is the registry's monotonic time.

    Counts go by state, so that a restart, before any heartbeat was heard, sees the same fleet. Load counts only if it
    is fresh and the node warm. ``candidates`` come in the order in which nodes would be chosen: fewest connections,
    ties by the order of the registry; those that something keeps stand last. There are at most ``candidates`` of them
    (by default 16, of more than 32 loaded nodes 8), and no decision removes more nodes than that.
    """
    fresh = weighed = connections = 0
    cpu = memory = 0.0
    warm_before = now - policy.warmup_seconds
    best: list[tuple[int, int, str]] = []
    worst = float("inf")
    aside = _Aside()
    limit = NAMED if candidates is None else min(candidates, NAMED)
    for node in nodes:
        if node.state != "active" or node.metrics_until < now:
            aside.other(node, now, warm_before)
            continue
        held = node.connections
        connections += held
        if node.joined > warm_before:
            aside.warm(node)
            continue
        fresh += 1
        cpu += node.cpu  # type: ignore[operator]  # metrics_until is set together with cpu
        if (used := node.memory) is not None:
            weighed += 1
            memory += used
        if held < worst:
            if node.protected:
                aside.keep(node, "PROTECTED")
                continue
            best.append((held, fresh, node.node_id))
            if len(best) >= _BATCH:  # sorting now and then costs less than keeping in order
                best.sort()
                del best[limit:]
                worst = best[-1][0]
    best.sort()
    if candidates is None and fresh > 2 * NAMED:
        limit = NAMED // 2
    states = aside.states.get
    leavers = [build(Candidate, node_id=name, connections=held, blocked_by=None) for held, _, name in best[:limit]]
    return build(
        PoolSnapshot,
        pool=pool,
        active=fresh + aside.warming + aside.stale + aside.silent,
        pending=sum(states(state, 0) for state in _PENDING),
        draining=states("draining", 0) + states("terminating", 0),
        failed=states("failed", 0),
        replaced=aside.replaced,
        quarantined=states("quarantined", 0),
        silent=aside.silent,
        warming=aside.warming,
        fresh=fresh,
        # Rounded, or three nodes at exactly 0.80 would have a mean of 0.8000000000000002 and cross the threshold.
        cpu=round(cpu / fresh, 9) if fresh else None,
        memory=round(memory / weighed, 9) if weighed else None,
        connections=connections,
        candidates=(*leavers, *aside.kept(limit - len(leavers))),
        dead=tuple(aside.dead),
    )


class _Aside:
    """The nodes that carry no countable load: out of the hot loop, because they are few."""

    def __init__(self) -> None:
        self.states: dict[str, int] = {}
        self.silent = self.warming = self.stale = self.replaced = 0
        self.dead: list[str] = []
        self._kept: list[tuple[int, int, str, str]] = []

    def warm(self, node: Node) -> None:
        """Active, and joined a moment ago."""
        self.warming += 1
        self.keep(node, "WARMING_UP")

    def other(self, node: Node, now: float, warm_before: float) -> None:
        """Not active, or without fresh metrics."""
        if node.state == "unreachable" or (node.state == "active" and node.deadline < now):
            self.silent += 1
            self.keep(node, "SILENT")
        elif node.state == "active" and node.joined > warm_before:
            self.warm(node)
        elif node.state == "active":
            self.stale += 1
            self.keep(node, "STALE_METRICS")
        else:
            self.states[node.state] = self.states.get(node.state, 0) + 1
            if node.state == "failed":
                self._failed(node)

    def _failed(self, node: Node) -> None:
        if node.leaving:
            self.replaced += 1
        elif len(self.dead) < NAMED:
            self.dead.append(node.node_id)

    def keep(self, node: Node, code: str) -> None:
        """A node that something keeps from being chosen."""
        code = "PROTECTED" if node.protected else code
        if len(self._kept) < NAMED:
            self._kept.append((_RANK[code], node.connections, node.node_id, code))

    def kept(self, most: int) -> list[Candidate]:
        """At most so many of them, in the order in which one would rather choose."""
        return [
            build(Candidate, node_id=node_id, connections=connections, blocked_by=code)
            for _, connections, node_id, code in sorted(self._kept)[:most]
        ]
