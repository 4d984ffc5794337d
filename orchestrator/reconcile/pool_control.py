"""What operators ask of pools; implements ``orchestrator.control.PoolControl``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.control import Missing
from orchestrator.explaining import Situation, why_pool
from orchestrator.operations.context import Context
from orchestrator.operations.executor import Executor
from orchestrator.reconcile.loop import ScalingLoop
from orchestrator.reconcile.pools import Pools
from orchestrator.scaling import DecisionLog
from secbeat.errors import RefusedError, UnreachableError
from secbeat.store import Ledger, Unavailable
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.pools import (
    Breaker,
    Override,
    Pause,
    PauseRequest,
    PoolRecord,
    PoolView,
    PoolWhy,
    ResumeRequest,
    ScaleRequest,
)

_LEDGER_DEPTH = 1000  # records of a pool that are read first; more only for a time before all of them
_DEEPEST = 1_000_000


class PoolMixin:
    """Pools of a :class:`orchestrator.core.Core`."""

    context: Context
    the_pools: Pools
    loop: ScalingLoop
    executor: Executor
    decisions_log: DecisionLog
    ledger: Ledger
    file: Path | None = None
    """The configuration file, to name it to people."""

    def pools(self) -> Sequence[PoolView]:
        return [self.the_pools.view(name) for name in self.the_pools.names()]

    def pool(self, name: str) -> PoolView:
        return self.the_pools.view(self._known(name))

    def why_pool(self, name: str) -> PoolWhy:
        records = self.context.records
        situation = Situation(
            policy=self.the_pools.policy(self._known(name)),
            record=records.pool(name),
            operations=sorted((op for op in records.operations.values() if op.pool == name), key=lambda op: op.op_id),
            file=self.file,
            pid=os.getpid(),
        )
        return why_pool(name, self.decisions_log.last(name), situation)

    def decisions(self, pool: str | None = None, *, newest: int = 100) -> Sequence[DecisionRecord]:
        return self.decisions_log.newest(None if pool is None else self._known(pool), newest)

    async def decision_at(self, pool: str, at: datetime) -> DecisionRecord | None:
        """See the Protocol.

        Raises:
            UnreachableError: STATE_UNAVAILABLE.
        """
        if (known := self.decisions_log.at(self._known(pool), at)) is not None:
            return known
        depth = _LEDGER_DEPTH
        try:
            while True:
                read = [record async for record in self.ledger.read("decision", pool, newest=depth)]
                oldest = DecisionRecord.decode(read[0]) if read else None
                if oldest is not None and oldest.at <= at:
                    return _in_force(read, at)
                if len(read) < depth or depth >= _DEEPEST:
                    return None
                depth *= 8
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=f"the ledger: {error}") from None

    async def scale(self, name: str, request: ScaleRequest, *, by: str) -> PoolView:
        policy = self.the_pools.policy(self._known(name))
        if not self.the_pools.configured(name):
            raise RefusedError("POOL_VANISHED", why=f"pool {name} is no longer in the configuration")
        if not policy.min <= request.size <= policy.max:
            raise RefusedError(
                "SIZE_OUT_OF_RANGE", why=f"{request.size} is not within min {policy.min} and max {policy.max}"
            )
        now = self.context.clock.now()
        override = Override(size=request.size, until=_until(now, request.for_seconds), by=by, since=now)
        until = "until 'resume'" if override.until is None else f"until {override.until:%Y-%m-%dT%H:%M:%SZ}"
        return await self._change(
            name,
            request.if_revision,
            lambda record: record.model_copy(update={"override": override}),
            "pool.scaled",
            f"{by} holds pool {name} at {request.size}, {until}",
        )

    async def pause(self, name: str, request: PauseRequest, *, by: str) -> PoolView:
        now = self.context.clock.now()
        pause = Pause(
            direction=request.direction,
            until=_until(now, request.for_seconds),
            by=by,
            reason=request.reason,
            since=now,
        )
        return await self._change(
            name,
            request.if_revision,
            lambda record: record.model_copy(update={"pause": pause}),
            "pool.paused",
            f"{by} paused pool {name} ({request.direction})" + (f": {request.reason}" if request.reason else ""),
        )

    async def resume(self, name: str, request: ResumeRequest, *, by: str) -> PoolView:
        """Ends what an operator or an outage holds; an open breaker gets a fresh start as well."""

        def change(record: PoolRecord) -> PoolRecord:
            cleared = {"pause": None, "override": None, "retired": False, "frozen_since": None, "breaker": Breaker()}
            return record.model_copy(update=cleared)

        self._known(name)
        if request.if_revision in {None, self.context.records.pool_revision(name)}:
            self.the_pools.thaw(name)
        return await self._change(name, request.if_revision, change, "pool.resumed", f"{by} resumed pool {name}")

    async def retire(self, name: str, *, by: str) -> PoolView:
        view = await self._change(
            name,
            None,
            lambda record: record.model_copy(update={"retired": True, "override": None}),
            "pool.retired",
            f"{by} retired pool {name}: it goes to zero",
        )
        for op in self.context.records.open_operations(name):
            self.executor.wake(op.op_id)
        return view

    def _known(self, name: str) -> str:
        if name not in self.the_pools.names():
            known = ", ".join(self.the_pools.names()) or "none"
            raise Missing("NOT_FOUND", why=f"there is no pool {name[:64]!r} (there is: {known})")
        return name

    async def _change(
        self,
        name: str,
        if_revision: int | None,
        change: Callable[[PoolRecord], PoolRecord],
        kind: str,
        sentence: str,
    ) -> PoolView:
        """Change the record of a pool that is at the caller's revision; the loop looks at once."""
        records = self.context.records
        self._known(name)
        self.context.gate.need_store()

        def checked(record: PoolRecord) -> PoolRecord:
            # Inside the record's lock: of two with the same revision one is refused.
            revision = records.pool_revision(name)
            if if_revision not in {None, revision}:
                raise RefusedError(
                    "CHANGED_MEANWHILE", why=f"pool {name} is at revision {revision}, you saw {if_revision}"
                )
            return change(record)

        try:
            await records.change_pool(name, checked)
        except Unavailable as error:
            raise UnreachableError("STATE_UNAVAILABLE", why=str(error)) from None
        self.context.events.publish(kind, sentence, pool=name)
        self.loop.wake(name)
        return self.the_pools.view(name)


def _in_force(records: Sequence[bytes], at: datetime) -> DecisionRecord:
    """The last decision made by ``at``; the first one was."""
    first, beyond = 0, len(records)
    while beyond - first > 1:
        middle = (first + beyond) // 2
        if DecisionRecord.decode(records[middle]).at <= at:
            first = middle
        else:
            beyond = middle
    return DecisionRecord.decode(records[first])


def _until(now: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)
