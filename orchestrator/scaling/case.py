"""One evaluation's facts, derived once; the rules read them and say what follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from orchestrator.scaling.history import History
from orchestrator.scaling.summary import allowed_silence
from secbeat.settings import PoolSettings
from secbeat.wire.decisions import Clamp, DecisionRecord, Direction, PoolSnapshot
from secbeat.wire.pools import Pause


@dataclass(frozen=True)
class Case:
    """Policy, history, snapshot and time, and what they amount to."""

    policy: PoolSettings
    history: History
    seen: PoolSnapshot
    now: datetime

    @property
    def capacity(self) -> int:
        return self.seen.capacity

    @cached_property
    def pause(self) -> Pause | None:
        """The pause in force."""
        pause = self.history.pause
        return None if pause is None or (pause.until is not None and pause.until <= self.now) else pause

    @cached_property
    def wanted(self) -> int | None:
        """The size that an operator set and that is still in force, within min and max; None: the policy decides."""
        override = self.history.override
        if override is None or (override.until is not None and override.until <= self.now):
            return None
        return min(max(override.size, self.policy.min), self.policy.max)

    # ------------------------------------------------------------------ health

    @cached_property
    def dead(self) -> tuple[str, ...]:
        """Nodes with a verdict for which nothing was started yet."""
        return tuple(node_id for node_id in self.seen.dead if node_id not in self.history.replaced)

    @cached_property
    def unreplaced(self) -> int:
        """How many of them there are; ``dead`` names at most sixteen."""
        listed_but_replaced = len(self.seen.dead) - len(self.dead)
        return max(self.seen.failed - self.seen.replaced - listed_but_replaced, 0)

    @cached_property
    def known(self) -> int:
        return self.seen.active + self.unreplaced

    @cached_property
    def outage(self) -> bool:
        """Too many nodes silent or dead at once to be the nodes' own fault."""
        return self.seen.silent + self.unreplaced > allowed_silence(self.known)

    # ------------------------------------------------------------------ load

    @cached_property
    def eligible(self) -> int:
        """Nodes whose load should count: active and not warming up."""
        return self.seen.active - self.seen.warming

    @cached_property
    def measured(self) -> bool:
        """Whether enough nodes have fresh metrics for a verdict about the pool."""
        needed = max(1, math.ceil(round(self.policy.min_fresh_fraction * self.eligible, 9)))
        return self.seen.cpu is not None and self.seen.fresh >= needed

    @property
    def cpu(self) -> float:
        """The mean; only where ``measured``."""
        return self.seen.cpu if self.seen.cpu is not None else math.nan

    @cached_property
    def high(self) -> bool:
        return self.measured and self.cpu > self.policy.scale_up_cpu_threshold

    @cached_property
    def low(self) -> bool:
        return self.measured and self.cpu < self.policy.scale_down_cpu_threshold

    @cached_property
    def relief(self) -> float:
        """The mean once the nodes that warm up have taken their share."""
        return self.cpu * self.seen.fresh / (self.seen.fresh + self.seen.warming)

    @cached_property
    def relieved(self) -> bool:
        """Whether the nodes that have just joined are expected to be enough."""
        return self.seen.warming > 0 and self.relief <= self.policy.scale_up_cpu_threshold

    @cached_property
    def up_checks(self) -> int:
        """A check counts only while the fleet is what it will be: not during a boot or a warm-up that may suffice."""
        counts = self.high and self.seen.pending == 0 and not self.relieved
        return self.history.up_checks + 1 if counts else 0

    @cached_property
    def down_checks(self) -> int:
        return self.history.down_checks + 1 if self.low and self.seen.pending == 0 else 0

    @cached_property
    def step_up(self) -> int:
        """Nodes that would bring the mean down to the upper threshold, within the policy's step."""
        needed = math.ceil(round(self.cpu * self.seen.active / max(self.policy.scale_up_cpu_threshold, 0.01), 6))
        return min(max(needed - self.capacity, 1), self.policy.max_step_up)

    # ------------------------------------------------------------------ the result

    def record(
        self,
        direction: Direction,
        code: str,
        sentence: str,
        *,
        size: int = 0,
        clamps: tuple[Clamp, ...] = (),
        victim: str | None = None,
        desired: int | None = None,
    ) -> DecisionRecord:
        """The decision; ``desired`` defaults to what direction and size make of the capacity."""
        change = {"up": size, "replace": size, "down": -size, "hold": 0}[direction]
        return DecisionRecord(
            pool=self.seen.pool,
            revision=self.history.revision + 1,
            at=self.now,
            direction=direction,
            size=size,
            code=code,
            sentence=sentence,
            clamps=clamps,
            capacity=self.capacity,
            desired=max(self.capacity + change, 0) if desired is None else desired,
            up_checks=self.up_checks,
            down_checks=self.down_checks,
            victim=victim,
            would=self.policy.mode == "observe",
            snapshot=self.seen,
        )

    def hold(self, *clamps: Clamp) -> DecisionRecord:
        """Nothing happens, because of the first of ``clamps``; the others would have stopped it as well."""
        return self.record("hold", clamps[0].code, clamps[0].sentence, clamps=clamps)


def percent(fraction: float) -> str:
    """``80 %``, ``80.04 %``."""
    return f"{round(100 * fraction, 2):g} %"


def count(number: int, noun: str = "node") -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ago(now: datetime, then: datetime) -> timedelta:
    """How long ago; never negative, whatever the clocks do."""
    return max(now - then, timedelta(0))
