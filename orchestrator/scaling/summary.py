"""One pass over a pool's nodes: everything that a decision may look at, bounded whatever the size of the fleet."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable

from orchestrator.fleet.node import Node
from secbeat.settings import PolicySettings
from secbeat.wire.decisions import Candidate, PoolSnapshot

CANDIDATES = 16
_PENDING = ("requested", "provisioning", "booting", "joining")
_RANK = {"WARMING_UP": 1, "STALE_METRICS": 2, "SILENT": 3, "PROTECTED": 4}


def allowed_silence(known: int) -> int:
    """So many of ``known`` nodes may be silent or dead before it is an outage: max(1, ceil 20 %)."""
    return max(1, -(-known // 5))


def summarise(nodes: Iterable[Node], *, pool: str, policy: PolicySettings, now: float) -> PoolSnapshot:
    """What one evaluation sees of ``pool``; ``nodes`` are its nodes, ``now`` is the registry's monotonic time.

    Counts go by state, so that a restart, before any heartbeat was heard, sees the same fleet. Load counts only if it
    is fresh and the node warm. ``candidates`` come in the order in which nodes would be chosen: fewest connections,
    ties by the order of the registry; those that something keeps stand last.
    """
    fresh = weighed = connections = 0
    cpu = memory = 0.0
    warm_before = now - policy.warmup_seconds
    best: list[tuple[int, int, str]] = []
    worst = float("inf")
    aside = _Aside()
    for node in nodes:
        if node.state != "active" or node.deadline < now:
            aside.other(node)
            continue
        if node.metrics_until < now or node.joined > warm_before:
            aside.unweighed(node, warming=node.joined > warm_before)
            continue
        fresh += 1
        cpu += node.cpu  # type: ignore[operator]  # metrics_until is set together with cpu
        if (used := node.memory) is not None:
            weighed += 1
            memory += used
        connections += (held := node.connections)
        if node.protected:
            aside.keep(node, "PROTECTED")
        elif held < worst:
            insort(best, (held, fresh, node.node_id))
            if len(best) >= CANDIDATES:
                del best[CANDIDATES:]
                worst = best[-1][0]
    states = aside.states
    leavers = [Candidate.model_construct(node_id=name, connections=held, blocked_by=None) for held, _, name in best]
    return PoolSnapshot(
        pool=pool,
        active=fresh + aside.warming + aside.stale + aside.silent,
        pending=sum(states[state] for state in _PENDING),
        draining=states["draining"] + states["terminating"],
        failed=states["failed"],
        replaced=aside.replaced,
        quarantined=states["quarantined"],
        silent=aside.silent,
        warming=aside.warming,
        fresh=fresh,
        # Rounded, or three nodes at exactly 0.80 would have a mean of 0.8000000000000002 and cross the threshold.
        cpu=round(cpu / fresh, 9) if fresh else None,
        memory=round(memory / weighed, 9) if weighed else None,
        connections=connections + aside.connections,
        candidates=tuple([*leavers, *aside.kept()][:CANDIDATES]),
        dead=tuple(aside.dead),
    )


class _Aside:
    """The nodes that carry no countable load: out of the hot loop, because they are few."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.silent = self.warming = self.stale = self.replaced = self.connections = 0
        self.dead: list[str] = []
        self._kept: list[Candidate] = []

    def other(self, node: Node) -> None:
        """Not active, or silent."""
        if node.state in {"active", "unreachable"}:
            self.silent += 1
            self.keep(node, "PROTECTED" if node.protected else "SILENT")
            return
        self.states[node.state] += 1
        if node.state == "failed":
            if node.leaving:
                self.replaced += 1
            elif len(self.dead) < CANDIDATES:
                self.dead.append(node.node_id)

    def unweighed(self, node: Node, *, warming: bool) -> None:
        """Active and alive, but warming up or without fresh metrics."""
        self.warming += warming
        self.stale += not warming
        self.connections += node.connections
        self.keep(node, "PROTECTED" if node.protected else "WARMING_UP" if warming else "STALE_METRICS")

    def keep(self, node: Node, code: str) -> None:
        """A node that something keeps from being chosen."""
        if len(self._kept) < CANDIDATES:
            found = Candidate.model_construct(node_id=node.node_id, connections=node.connections, blocked_by=code)
            self._kept.append(found)

    def kept(self) -> list[Candidate]:
        """Those that one would rather choose first."""
        return sorted(self._kept, key=lambda found: (_RANK[found.blocked_by or ""], found.connections))
