"""From a decision to operations: the only place where a verdict about a pool becomes an intent."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from orchestrator.operations import breaker
from orchestrator.operations.context import Context
from orchestrator.operations.issuing import Issuing
from orchestrator.reconcile.gate import GateClosed
from orchestrator.scaling import acts, victims
from secbeat.store import Unavailable
from secbeat.wire.decisions import DecisionRecord

log = logging.getLogger("ResourceManager")


@dataclass(frozen=True)
class Acting:
    """Issues what a decision asks for, as far as gate and caps let."""

    context: Context
    issuing: Issuing

    async def act(self, decision: DecisionRecord) -> list[str]:
        """The operations that were written; fewer than asked for if the gate closed or the store went away."""
        if not acts(decision):
            return []
        op_ids: list[str] = []
        try:
            if decision.direction == "up":
                await self._up(decision, op_ids)
            elif decision.direction == "replace":
                await self._replace(decision, op_ids)
            else:
                await self._down(decision, op_ids)
        except GateClosed as closed:
            log.info("ResourceManager scaling of pool %s waits: %s", decision.pool, closed.sentence)
        except Unavailable as error:
            log.warning("ResourceManager scaling of pool %s was not written: %s", decision.pool, error)
        return op_ids

    async def _up(self, decision: DecisionRecord, op_ids: list[str]) -> None:
        size = min(decision.size, self.issuing.room(decision.pool, "create"))
        if size and breaker.is_open(self.context.records.pool(decision.pool).breaker):
            await self._probe(decision.pool)
            size = 1
        by = self._asked_by(decision)
        for _ in range(size):
            op = await self.issuing.create(decision.pool, reason=decision.code, by=by)
            op_ids.append(op.op_id)

    async def _probe(self, pool: str) -> None:
        """The next try waits for its own time, written before this one begins."""
        now, reset = self.context.clock.now(), self.context.settings().breaker_reset_seconds
        await self.context.records.change_pool(pool, lambda one: breaker.probing(one, now=now, reset_seconds=reset))

    async def _replace(self, decision: DecisionRecord, op_ids: list[str]) -> None:
        victim = decision.victim
        if victim is None or self.issuing.room(decision.pool, "create") == 0:
            return
        if breaker.is_open(self.context.records.pool(decision.pool).breaker):
            await self._probe(decision.pool)
        opened = self.context.records.open_operations(decision.pool)
        if not any(op.failed_node_id == victim for op in opened):
            op = await self.issuing.create(decision.pool, reason=decision.code, by="autoscaler", failed_node_id=victim)
            op_ids.append(op.op_id)
        if (node := self.context.records.node(victim)) is not None:
            op_ids.append((await self.issuing.destroy(node, reason=decision.code, by="autoscaler")).op_id)

    async def _down(self, decision: DecisionRecord, op_ids: list[str]) -> None:
        by = self._asked_by(decision)
        for node_id in victims(decision)[: self.issuing.room(decision.pool, "destroy")]:
            if (node := self.context.records.node(node_id)) is not None:
                op = await self.issuing.destroy(node, reason=decision.code, by=by)
                op_ids.append(op.op_id)

    def _asked_by(self, decision: DecisionRecord) -> str:
        override = self.context.records.pool(decision.pool).override
        return override.by if decision.code == "OVERRIDE" and override is not None and override.by else "autoscaler"
