"""One evaluation: its facts, and the record of what follows from them."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.scaling.building import build
from orchestrator.scaling.facts import Facts
from orchestrator.scaling.triggers import policy_revision, triggers
from secbeat.wire.base import VERSION
from secbeat.wire.decisions import Clamp, DecisionRecord, Direction


class Case(Facts):
    """Policy, history, snapshot and time, what they amount to, and what is decided."""

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
        return build(
            DecisionRecord,
            v=VERSION,
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
            wanted=self.asked,
            actual=self.seen.active - self.seen.silent,
            triggers=triggers(self),
            winner=self.winner,
            policy=policy_revision(self.policy),
            up_checks=self.up_checks,
            down_checks=self.down_checks,
            victim=victim,
            would=self.policy.mode == "observe",
            snapshot=self.seen,
            op_ids=(),
            equal_since=None,
            equal_count=1,
            stands_for=1,
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
