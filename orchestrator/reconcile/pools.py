"""Pools: their policies from the settings, their records from the store, and what the API shows of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from orchestrator.fleet.registry import Registry
from orchestrator.reconcile.records import Records
from orchestrator.scaling import DecisionLog, History, summarise
from secbeat.clock import Clock
from secbeat.settings import PoolSettings, Settings
from secbeat.wire.decisions import PoolSnapshot
from secbeat.wire.pools import Override, Pause, PoolView
from secbeat.wire.webhook import FleetMetrics


@dataclass(kw_only=True)
class Pools:
    """Reads only; whoever changes a pool goes through ``records``."""

    settings: Callable[[], Settings]
    records: Records
    registry: Registry
    decisions: DecisionLog
    clock: Clock
    histories: dict[str, History] = field(default_factory=dict)
    _left: set[str] = field(default_factory=set)

    def names(self) -> list[str]:
        """The configured pools, then those that vanished from the file and still have something."""
        configured = list(self.settings().pools)
        left = {name for name, record in self.records.pools.items() if record.vanished} | self._left
        return configured + sorted(left - set(configured))

    def look_for_left(self) -> None:
        """Find the pools that only nodes and operations still know: after loading, and when the settings change."""
        self._left = {node.pool for node in self.registry.nodes()}
        self._left |= {op.pool for op in self.records.open_operations()}

    def configured(self, name: str) -> bool:
        """Whether the settings have this pool."""
        return name in self.settings().pools

    def policy(self, name: str) -> PoolSettings:
        """The pool's policy; a vanished pool's operations end by the defaults."""
        return self.settings().pools.get(name) or PoolSettings()

    def observed(self, name: str) -> bool:
        """Whether the pool only decides and records."""
        return self.policy(name).mode == "observe"

    def snapshot(self, name: str) -> PoolSnapshot:
        """What an evaluation would see now."""
        return summarise(self.registry.nodes(name), pool=name, policy=self.policy(name), now=self.clock.monotonic())

    def history(self, name: str) -> History:
        """Checks and paces of the pool, in memory."""
        return self.histories.setdefault(name, History())

    def thaw(self, name: str) -> None:
        """An operator says that the silence is real: it no longer holds the pool, until it is over."""
        self.histories[name] = replace(self.history(name), thawed=True)

    def fleet_metrics(self, name: str) -> FleetMetrics:
        """The guide's four numbers; what is not known is 0, as the guide has no other word for it."""
        seen = self.snapshot(name)
        return FleetMetrics(
            active_nodes=seen.active,
            avg_cpu_usage=seen.cpu or 0.0,
            avg_memory_usage=seen.memory or 0.0,
            total_connections=seen.connections,
        )

    def pause(self, name: str) -> Pause | None:
        """The pause in force."""
        found = self.records.pool(name).pause
        return None if found is None or (found.until is not None and found.until <= self.clock.now()) else found

    def override(self, name: str) -> Override | None:
        """The manual size in force."""
        found = self.records.pool(name).override
        return None if found is None or (found.until is not None and found.until <= self.clock.now()) else found

    def view(self, name: str) -> PoolView:
        """One pool as the API shows it."""
        policy, record, seen = self.policy(name), self.records.pool(name), self.snapshot(name)
        decision, override = self.decisions.last(name), self.override(name)
        desired = override.size if override is not None else seen.capacity if decision is None else decision.desired
        return PoolView(
            name=name,
            revision=self.records.pool_revision(name),
            mode=policy.mode,
            min=policy.min,
            max=policy.max,
            capacity=seen.capacity,
            active=seen.active,
            pending=seen.pending,
            draining=seen.draining,
            failed=seen.failed,
            desired=0 if record.retired else desired,
            cpu=seen.cpu,
            blueprint=policy.blueprint,
            policy=policy.model_dump(mode="json", exclude={"min", "max", "mode", "blueprint"}),
            pause=self.pause(name),
            override=override,
            retired=record.retired,
            frozen_since=record.frozen_since,
            breaker=record.breaker,
            open_operations=len(self.records.open_operations(name)),
            decision=decision,
        )
