"""One evaluation's facts, derived once; the rules and the triggers read them."""

from __future__ import annotations

import math
from datetime import datetime

from orchestrator.scaling.history import History
from orchestrator.scaling.summary import allowed_silence
from secbeat.settings import PoolSettings
from secbeat.wire.decisions import PoolSnapshot, TriggerName
from secbeat.wire.pools import Pause


class Facts:
    """Policy, history, snapshot and time, and what they amount to."""

    def __init__(self, policy: PoolSettings, history: History, seen: PoolSnapshot, now: datetime) -> None:
        self.policy, self.history, self.seen, self.now = policy, history, seen, now
        self.capacity = seen.capacity
        self.dead = tuple(node_id for node_id in seen.dead if node_id not in history.replaced)
        """Nodes with a verdict for which nothing was started yet; at most sixteen are named."""
        self.unreplaced = max(seen.failed - seen.replaced - (len(seen.dead) - len(self.dead)), 0)
        """How many such nodes there are."""
        self.known = seen.active + self.unreplaced
        self.eligible = seen.active - seen.warming
        """Nodes whose load should count: active and not warming up."""
        needed = max(1, math.ceil(round(policy.min_fresh_fraction * self.eligible, 9)))
        self.measured = seen.cpu is not None and seen.fresh >= needed
        """Whether enough nodes have fresh metrics for a verdict about the pool."""
        self.cpu = seen.cpu if seen.cpu is not None else math.nan
        self.high = self.measured and self.cpu > policy.scale_up_cpu_threshold
        self.low = self.measured and self.cpu < policy.scale_down_cpu_threshold
        self.relief = self.cpu * seen.fresh / (seen.fresh + seen.warming) if self.measured else math.nan
        """The mean once the nodes that warm up have taken their share."""
        self.relieved = seen.warming > 0 and self.relief <= policy.scale_up_cpu_threshold
        """Whether the nodes that have just joined are expected to be enough."""
        # A check counts only while the fleet is what it will be: not during a boot, nor a warm-up that may suffice.
        settled = seen.pending == 0
        self.up_checks = history.up_checks + 1 if self.high and settled and not self.relieved else 0
        self.down_checks = history.down_checks + 1 if self.low and settled else 0
        self.winner: TriggerName | None = None
        self.asked: int | None = None
        """The size that the winner alone asks for."""

    def won_by(self, winner: TriggerName, size: int) -> None:
        """From here on this trigger decides; ``size`` is the pool's that it asks for, whatever limits it later."""
        self.winner, self.asked = winner, max(size, 0)

    @property
    def pause(self) -> Pause | None:
        """The pause in force."""
        pause = self.history.pause
        return None if pause is None or (pause.until is not None and pause.until <= self.now) else pause

    @property
    def wanted(self) -> int | None:
        """The size that an operator set and that is still in force, within min and max; None: the policy decides."""
        override = self.history.override
        if override is None or (override.until is not None and override.until <= self.now):
            return None
        return min(max(override.size, self.policy.min), self.policy.max)

    @property
    def outage(self) -> bool:
        """Too many nodes silent or dead at once to be the nodes' own fault."""
        return self.seen.silent + self.unreplaced > allowed_silence(self.known)

    @property
    def needed(self) -> int:
        """Nodes that would bring the mean down to the upper threshold; only while the mean is above it."""
        return math.ceil(round(self.cpu * self.seen.active / max(self.policy.scale_up_cpu_threshold, 0.01), 6))

    @property
    def step_up(self) -> int:
        """Nodes to add toward ``needed``, within the policy's step."""
        return min(max(self.needed - self.capacity, 1), self.policy.max_step_up)
