"""Which nodes of the original registered from where: the only trace of identity that they have.

Of one address and management port there is one process at a time. Where many nodes share an address (behind a NAT), it
says nothing, and nobody is taken for anybody.
"""

from __future__ import annotations

from orchestrator.fleet.node import Node
from orchestrator.fleet.registry import Registry
from secbeat.wire.nodes import NodeRecord

Place = tuple[str | None, int]

_CROWD = 32  # more nodes than that behind one address are a crowd


def place_of(record: NodeRecord) -> Place:
    """Where its management port is."""
    return record.management_host, record.management_port


class Places:
    """An index of the registry's legacy nodes by place, made anew for each leadership."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._epoch: int | None = None
        self._ids: dict[Place, dict[str, None]] = {}
        self._prune_at: dict[Place, int] = {}

    def look(self, epoch: int) -> None:
        """Read the registry, if that has not been done in this leadership."""
        if self._epoch == epoch:
            return
        self._ids.clear()
        self._prune_at.clear()
        for node in self._registry.nodes():
            if node.legacy:
                self.add(node.record)
        self._epoch = epoch

    def add(self, record: NodeRecord) -> None:
        """A node has registered."""
        place = place_of(record)
        ids = self._ids.setdefault(place, {})
        ids[record.node_id] = None
        if len(ids) > self._prune_at.get(place, _CROWD):
            known = {node_id: None for node_id in ids if node_id in self._registry}
            self._ids[place] = known
            self._prune_at[place] = _CROWD if len(known) <= _CROWD else 2 * len(known)

    def at(self, place: Place, pool: str) -> list[Node]:
        """The nodes of the pool that registered from there; none where there is a crowd."""
        ids = self._ids.get(place, {})
        if len(ids) > _CROWD:
            return []
        found = [self._registry.get(node_id) for node_id in ids]
        return [node for node in found if node is not None and node.legacy and node.pool == pool]
