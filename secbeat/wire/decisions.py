"""Decisions: the resource manager's verdict for one pool at one tick, with the inputs that it saw."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secbeat.wire.base import Count, Fraction, Moment, NodeId, PoolName, Record, Text, Wire
from secbeat.wire.webhook import Reason

Direction = Literal["up", "down", "replace", "hold"]
TriggerName = Literal["high_cpu", "low_cpu", "below_min", "above_max", "override", "dead_nodes", "retired"]


class Clamp(Wire):
    """A limit that changed or stopped what the policy alone would have done."""

    code: Reason
    sentence: Text
    until: Moment | None = Field(None, description="When it ends by itself, if the clock alone decides that.")


class Trigger(Wire):
    """One thing that can change a pool's size, as an evaluation found it: all are recorded, met or not."""

    name: TriggerName
    value: float | None = Field(None, description="What was measured: a fraction for cpu, else nodes; null: nothing.")
    limit: float | None = Field(None, description="What it was compared with.")
    met: bool = False
    checks: Count = Field(0, description="Consecutive checks at which it was met, this one included.")
    needed: Count = Field(1, description="So many are needed before it changes anything.")
    size: Count | None = Field(None, description="The pool's size if this trigger alone decided; null: not met.")
    formula: str = Field("", max_length=200, description="How that size follows from the numbers.")


class Candidate(Wire):
    """A node that may leave, in the order in which nodes would be chosen (fewest connections first)."""

    node_id: NodeId
    connections: Count
    blocked_by: Reason | None = None


class PoolSnapshot(Wire):
    """What one evaluation saw of one pool; bounded whatever the size of the fleet.

    Counts go by records, not by heartbeats. ``active`` nodes include silent ones: they count until their verdict.
    """

    pool: PoolName
    active: Count = 0
    pending: Count = Field(0, description="Requested, provisioning, booting or joining: capacity on its way.")
    draining: Count = Field(0, description="Draining or terminating: no capacity any more.")
    failed: Count = Field(0, description="Verdict dead: absent for capacity, not yet destroyed.")
    replaced: Count = Field(0, description="Of the failed: those with an operation that removes or replaces them.")
    quarantined: Count = 0
    silent: Count = Field(0, description="Active, but without a heartbeat for several of its intervals.")
    warming: Count = Field(0, description="Active, but joined less than warmup_seconds ago: its load does not count.")
    fresh: Count = Field(0, description="Active and warm, with metrics fresh enough to count.")
    cpu: Fraction | None = Field(None, description="Mean over the fresh nodes; null when there is none.")
    memory: Fraction | None = None
    connections: Count = 0
    candidates: tuple[Candidate, ...] = Field((), max_length=16)
    dead: tuple[NodeId, ...] = Field((), max_length=16, description="Nodes with a verdict and no replacement yet.")

    @property
    def capacity(self) -> int:
        """What serves or soon will: the number that min, max and a desired size are compared with."""
        return self.active + self.pending


class DecisionRecord(Record):
    """One evaluation of one pool; ``size`` nodes in ``direction``."""

    pool: PoolName
    revision: Count = Field(0, description="Counts the pool's evaluations since the leader took over.")
    at: Moment
    direction: Direction
    size: Count = 0
    code: Reason
    sentence: Text
    clamps: tuple[Clamp, ...] = ()
    capacity: Count = Field(0, description="From: active and pending nodes before the decision.")
    desired: Count = Field(0, description="To: the same after it.")
    wanted: Count | None = Field(None, description="What the winner alone asks for, before every clamp.")
    actual: Count = Field(0, description="Nodes that serve now.")
    triggers: tuple[Trigger, ...] = ()
    winner: TriggerName | None = Field(None, description="The trigger that decided; null: none, or a hold before any.")
    policy: str = Field("", max_length=16, description="Revision of the policy: equal for equal values of its keys.")
    up_checks: Count = Field(0, description="Consecutive checks above the upper threshold, this one included.")
    down_checks: Count = 0
    victim: NodeId | None = Field(None, description="Scale-down: the node that leaves. Replace: the dead node.")
    would: bool = Field(False, description="Mode 'observe': recorded, and nothing can come of it.")
    snapshot: PoolSnapshot
    op_ids: tuple[str, ...] = ()
    equal_since: Moment | None = None
    equal_count: Count = Field(1, description="So many consecutive evaluations said the same, this one included.")
    stands_for: Count = Field(
        1, description="In the ledger: evaluations that this record stands for, those recorded before not counted."
    )
