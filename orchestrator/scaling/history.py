"""What a decision needs to know besides the fleet: earlier checks and scalings, and what operators asked for."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field
from msgspec.structs import replace

from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.pools import Breaker, Override, Pause, PoolRecord


class History(Struct, frozen=True, kw_only=True):
    """Of one pool. The counters live in memory; the rest comes from the pool's record at each evaluation."""

    up_checks: int = 0
    down_checks: int = 0
    revision: int = 0
    last_up_at: datetime | None = None
    last_down_at: datetime | None = None
    last_replace_at: datetime | None = None
    pause: Pause | None = None
    override: Override | None = None
    retired: bool = False
    vanished: bool = False
    frozen_since: datetime | None = None
    thawed: bool = False
    """An operator said ``resume`` during a mass silence: it no longer holds the pool, until it is over."""
    breaker: Breaker = field(default_factory=Breaker)
    open_operations: int = 0
    open_limit: int | None = None
    """Most open operations of the pool (or what is left of the limit of all pools); None: no limit."""
    replaced: frozenset[str] = frozenset()
    """Dead nodes for which an operation is under way."""

    def with_record(
        self,
        record: PoolRecord,
        *,
        open_operations: int = 0,
        open_limit: int | None = None,
        replaced: frozenset[str] = frozenset(),
    ) -> History:
        """This history with what the pool's record and the open operations say now."""
        return replace(
            self,
            pause=record.pause,
            override=record.override,
            retired=record.retired,
            vanished=record.vanished,
            frozen_since=record.frozen_since,
            breaker=record.breaker,
            last_up_at=record.last_up_at,
            last_down_at=record.last_down_at,
            open_operations=open_operations,
            open_limit=open_limit,
            replaced=replaced,
        )

    def after(self, decision: DecisionRecord, *, acted: bool = True) -> History:
        """The history for the next evaluation; ``acted`` is False if the operations could not be written.

        A scaling starts the checks anew and starts the cooldowns. A decision of mode 'observe' scales nothing.
        """
        acted = acted and not decision.would and decision.size > 0
        seen = decision.snapshot
        up, down = (acted and decision.direction == direction for direction in ("up", "down"))
        return replace(
            self,
            revision=decision.revision,
            up_checks=0 if up else decision.up_checks,
            down_checks=0 if down else decision.down_checks,
            last_up_at=decision.at if up else self.last_up_at,
            last_down_at=decision.at if down else self.last_down_at,
            last_replace_at=decision.at if acted and decision.direction == "replace" else self.last_replace_at,
            # An operator's word about a mass silence holds until the last of its dead is replaced.
            thawed=self.thawed and (seen.silent > 0 or seen.failed > seen.replaced),
        )
