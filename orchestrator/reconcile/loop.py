"""The scaling loop: every pool at its own interval, and at once when a fleet falls below what it must have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.operations.context import Context
from orchestrator.operations.waiting import wait
from orchestrator.reconcile.acting import Acting
from orchestrator.reconcile.pools import Pools
from orchestrator.scaling import History, acts, allowed_silence, decide
from secbeat.store import Unavailable
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.events import AuditEvent
from secbeat.wire.pools import Override, Pause, PoolRecord

log = logging.getLogger("ResourceManager")

# A decision removes sixteen nodes at most: each operation wakes the loop, and what is still too much goes as well.
_AT_ONCE = frozenset({"BELOW_MIN_FLEET_SIZE", "OVERRIDE", "RETIRED", "ABOVE_MAX_FLEET_SIZE"})
_NAP = 60.0
_OUTAGE = "MASS_SILENCE"


@dataclass(kw_only=True)
class ScalingLoop:
    """Summarise, decide, act, note. ``wake`` asks for a look between two checks: it counts for no threshold."""

    context: Context
    pools: Pools
    acting: Acting
    audit: Callable[[AuditEvent], None] = lambda _event: None
    on_evaluated: Callable[[DecisionRecord, PoolRecord], None] = lambda _decision, _record: None
    _due: dict[str, float] = field(default_factory=dict)
    _dirty: set[str] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _said: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def wake(self, pool: str) -> None:
        """Something about this pool has changed."""
        self._dirty.add(pool)
        self._wake.set()

    def restart(self) -> None:
        """A new leadership: every pool is checked now, its counters begin anew."""
        self._due.clear()
        self._dirty.clear()
        self.pools.histories.clear()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            seconds = await self.turn()
            await wait(self._wake, self.context.clock, seconds)

    async def turn(self) -> float:
        """Evaluate what is due; seconds until the next pool is."""
        names = self.pools.names()
        dirty, self._dirty = self._dirty, set()
        for name in names:
            now = self.context.clock.monotonic()
            scheduled = now >= self._due.get(name, now)
            if scheduled:
                self._due[name] = now + self.pools.policy(name).scaling_check_interval_seconds
            if scheduled or name in dirty:
                try:
                    await self.evaluate(name, scheduled=scheduled)
                except Unavailable as error:
                    log.warning("ResourceManager scaling of pool %s: %s", name, error, extra={"action": "store_away"})
        now = self.context.clock.monotonic()
        await self.pools.decisions.flush()
        return max(min((self._due[name] - now for name in names), default=_NAP), 0.05)

    async def evaluate(self, name: str, *, scheduled: bool = True) -> DecisionRecord | None:
        """One evaluation; None: a look between two checks that found nothing to be done at once."""
        record = await self._expired(name)
        self._look_again(name, record)
        history = self._history(name, record)
        decision = decide(self.pools.policy(name), history, self.pools.snapshot(name), self.context.clock.now())
        if not scheduled and not (decision.code in _AT_ONCE and acts(decision)):
            return None
        op_ids = await self.acting.act(decision)
        decision = decision.model_copy(update={"op_ids": tuple(op_ids)})
        self.pools.histories[name] = history.after(decision, acted=bool(op_ids))
        decision = self.pools.decisions.add(decision)
        await self._keep(name, decision, acted=bool(op_ids))
        self._tell(decision, acted=bool(op_ids))
        self.on_evaluated(decision, self.context.records.pool(name))
        return decision

    def _look_again(self, name: str, record: PoolRecord) -> None:
        """A pool is checked when its wait after a failed boot, its pause or its manual size ends, and not later."""
        breaker = record.breaker
        ends = [breaker.retry_at] if breaker.open_since is None else []
        ends += [held.until for held in (record.pause, record.override) if held is not None]
        now, monotonic = self.context.clock.now(), self.context.clock.monotonic()
        for end in ends:
            if end is not None and name in self._due and (left := (end - now).total_seconds()) > 0:
                self._due[name] = min(self._due[name], monotonic + left)

    # -------------------------------------------------------------- inputs

    def _history(self, name: str, record: PoolRecord) -> History:
        records = self.context.records
        creates = [op for op in records.open_operations(name) if op.action == "create"]
        return self.pools.history(name).with_record(
            record,
            open_operations=len(creates),
            open_limit=len(creates) + self.acting.issuing.room(name, "create"),
            replaced=frozenset(self._attended(name)),
        )

    def _attended(self, name: str) -> set[str]:
        """Dead nodes for which something is under way, or which never lived: their boot failed."""
        records = self.context.records
        found = {op.failed_node_id for op in records.open_operations(name) if op.failed_node_id is not None}
        failed = {op.node_id for op in records.operations.values() if op.action == "create" and op.state == "failed"}
        return found | failed

    async def _expired(self, name: str) -> PoolRecord:
        """The pool's record without what has run out; notes whether the configuration still has the pool."""
        records = self.context.records
        pause, override = self.pools.pause(name), self.pools.override(name)
        vanished = not self.pools.configured(name)
        before = records.pool(name)
        if (before.pause, before.override, before.vanished) == (pause, override, vanished):
            return before
        after = await records.change_pool(
            name, lambda one: one.model_copy(update={"pause": pause, "override": override, "vanished": vanished})
        )
        if before.pause is not None and pause is None:
            self._ended(name, "pause", before.pause)
        if before.override is not None and override is None:
            self._ended(name, "override", before.override)
        if vanished != before.vanished:
            what = "is no longer configured: it stays as it is" if vanished else "is configured again"
            self.context.events.publish(
                "pool.vanished" if vanished else "pool.returned", f"Pool {name} {what}", pool=name
            )
        return after

    def _ended(self, name: str, what: str, was: Pause | Override) -> None:
        """What an operator began ended by itself: an event, and the second of the two in the audit."""
        word = "pause" if what == "pause" else "manual size"
        self.context.events.publish("pool.expired", f"The {word} of pool {name} has run out", pool=name)
        self.audit(
            AuditEvent(
                at=self.context.clock.now(),
                who="autoscaler",
                scope="service",
                what=f"the {word} of pool {name} has run out",
                status=200,
                before={what: was.model_dump(mode="json")},
                after={what: None},
            )
        )

    # -------------------------------------------------------------- outcome

    async def _keep(self, name: str, decision: DecisionRecord, *, acted: bool) -> None:
        """What outlives a restart: when the pool last scaled, and whether mass silence holds it."""
        now, silence = decision.at, decision.code == _OUTAGE
        thawed = not silence and self._heard_again(name)

        def change(record: PoolRecord) -> PoolRecord:
            changes: dict[str, object] = {}
            if acted and decision.direction == "up":
                changes["last_up_at"] = now
            if acted and decision.direction == "down":
                changes["last_down_at"] = now
            if silence and record.frozen_since is None:
                changes["frozen_since"] = now
            if thawed and record.frozen_since is not None:
                changes["frozen_since"] = None
            return record.model_copy(update=changes) if changes else record

        before = self.context.records.pool(name).frozen_since
        if decision.would and not silence and before is None:
            return
        after = (await self.context.records.change_pool(name, change)).frozen_since
        if (before is None) != (after is None):
            kind = "pool.thawed" if after is None else "pool.frozen"
            what = "is no longer frozen" if after is None else f"is frozen: {decision.sentence}"
            self.context.events.publish(kind, f"Pool {name} {what}", pool=name)

    def _heard_again(self, name: str) -> bool:
        """Whether a freeze may end: not because a restart has forgotten who was silent, but because they are heard."""
        now, registry = self.context.clock.monotonic(), self.context.records.registry
        nodes = [node for node in registry.nodes(name) if node.state in {"active", "unreachable"}]
        unheard = sum(not node.heard or registry.silent(node, now) for node in nodes)
        return unheard <= allowed_silence(len(nodes))

    def _tell(self, decision: DecisionRecord, *, acted: bool) -> None:
        """Metrics always; log and event when the verdict is another one than before."""
        metrics = self.context.metrics
        metrics.decision(decision.pool, decision.direction, decision.code)
        if acted and decision.direction in {"up", "down"}:
            metrics.scaling_decision("scale_up" if decision.direction == "up" else "scale_down", decision.pool)
        essence = (decision.direction, decision.size, decision.code, decision.capacity, decision.would)
        if not acted and self._said.get(decision.pool) == essence:
            return
        self._said[decision.pool] = essence
        would = " (observe: nothing is done)" if decision.would else ""
        log.info(
            "ResourceManager scaling decision for pool %s: %s %d [%s] %s%s",
            decision.pool,
            decision.direction,
            decision.size,
            decision.code,
            decision.sentence,
            would,
            extra={"action": "decision", "pool": decision.pool, "code": decision.code},
        )
        self.context.events.publish(
            "pool.decision",
            f"{decision.direction} {decision.size}: {decision.sentence}{would}",
            pool=decision.pool,
            code=decision.code,
            direction=decision.direction,
            size=decision.size,
            op_ids=list(decision.op_ids),
        )
