"""The orchestrator's core: what the HTTP API asks of it, and what it does while it leads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.events import EventHub
from orchestrator.fleet.registry import Registry
from orchestrator.joining.credentials import CredentialIssuer
from orchestrator.joining.registering import Registering
from orchestrator.joining.secrets import JoinSecrets
from orchestrator.metrics import Metrics
from orchestrator.operations.context import Context
from orchestrator.operations.executor import Executor
from orchestrator.operations.jobs import Jobs
from orchestrator.operations.management import Nodes
from orchestrator.operations.repair import Repair
from orchestrator.operations.webhook import Webhooks
from orchestrator.reconcile.acting import Acting
from orchestrator.reconcile.gate import Gate
from orchestrator.reconcile.liveness import Liveness
from orchestrator.reconcile.loop import ScalingLoop
from orchestrator.reconcile.node_control import NodeMixin
from orchestrator.reconcile.operation_control import OperationMixin
from orchestrator.reconcile.pool_control import PoolMixin
from orchestrator.reconcile.pools import Pools
from orchestrator.reconcile.records import Records
from orchestrator.reconcile.signals import Signals
from orchestrator.scaling import DecisionLog
from secbeat import subjects
from secbeat.clock import Clock
from secbeat.settings import Settings
from secbeat.store import Bucket, Lease, Ledger, Messaging, Subscription, Unavailable
from secbeat.telemetry.tracing import OFF, Tracing
from secbeat.wire.events import AuditEvent

log = logging.getLogger("ResourceManager")

_SWEEP_SECONDS = 5.0
_PRUNE_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Stores:
    """``state``: fenced on the lease. ``jobs``: the provisioners'."""

    state: Bucket
    jobs: Bucket
    ledger: Ledger


class Core(PoolMixin, NodeMixin, OperationMixin):
    """Implements ``orchestrator.control.Control``.

    ``lead`` takes over: it loads the records and carries on where the last leader, or this one before a crash, stopped.
    ``follow`` lets go. In between, and only then, anything changes.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        stores: Stores,
        lease: Lease,
        messaging: Messaging,
        registry: Registry,
        clock: Clock,
        events: EventHub,
        metrics: Metrics,
        webhooks: Webhooks,
        nodes: Nodes,
        issuer: CredentialIssuer,
        audit: Callable[[AuditEvent], None],
        file: Path | None = None,
        base_url: Callable[[], str] | None = None,
        on_superseded: Callable[[int | None], None] = lambda _epoch: None,
        scheme: str = "http",
        tracing: Tracing = OFF,
    ) -> None:
        self.settings = settings
        self.file = file
        self.lease = lease
        self.ledger = stores.ledger
        self.registry = registry
        self._messaging = messaging
        self._clock = clock
        self.decisions_log = DecisionLog(stores.ledger)
        records = Records(stores.state, registry)
        self.the_pools = Pools(
            settings=lambda: self.settings,
            records=records,
            registry=registry,
            decisions=self.decisions_log,
            clock=clock,
        )
        self.context = Context(
            records=records,
            gate=Gate(lease, messaging, self.the_pools.observed),
            webhooks=webhooks,
            nodes=nodes,
            jobs=Jobs(jobs=stores.jobs, state=stores.state, messaging=messaging),
            clock=clock,
            ledger=stores.ledger,
            events=events,
            metrics=metrics,
            settings=lambda: self.settings.orchestrator,
            policy=self.the_pools.policy,
            fleet=self.the_pools.fleet_metrics,
            token=issuer.tokens.of,
            callback_url=_callback(base_url),
            on_superseded=on_superseded,
            tracing=tracing,
        )
        self.executor = Executor(self.context)
        self.repair = Repair(self.context, self.executor)
        self.loop = ScalingLoop(
            context=self.context, pools=self.the_pools, acting=Acting(self.context, self.executor.issuing), audit=audit
        )
        self.liveness = Liveness(
            context=self.context, pools=self.the_pools, executor=self.executor, messaging=messaging
        )
        self.signals = Signals(context=self.context, executor=self.executor, liveness=self.liveness)
        self.secrets = JoinSecrets(stores.state)
        self.registering = Registering(
            context=self.context,
            executor=self.executor,
            secrets=self.secrets,
            issuer=issuer,
            lease=lease,
            pools=self._pool_names,
            audit=audit,
            scheme=scheme,
        )
        self.context.on_change = self.loop.wake
        registry.on_signal = self.signals.receive
        self._hints: Subscription | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._loaded = False

    def _pool_names(self) -> Mapping[str, object]:
        return self.settings.pools

    @property
    def leader(self) -> bool:
        """Whether this process leads and has its records: before that it would answer from nothing."""
        return self.lease.held and self._loaded

    @property
    def epoch(self) -> int:
        return self.lease.epoch

    # -------------------------------------------------------------- leading

    async def start(self) -> None:
        """Subscribe; once, whether we lead or not."""
        if self._hints is None:
            self._hints = await self._messaging.subscribe(subjects.JOB_HINTS, self._hinted)
        await self.liveness.start()

    async def lead(self) -> None:
        """Load the records and begin.

        Raises:
            Unavailable: the store does not answer; nothing has begun.
            ConfigError: the records are newer than this program (STATE_NEWER).
        """
        await self.context.records.load()
        self.the_pools.look_for_left()
        self.loop.restart()
        self.liveness.restart()
        self._loaded = True
        self.executor.open()
        log.info(
            "ResourceManager leads with epoch %d: %d nodes, %d open operations; scaling begins",
            self.lease.epoch,
            len(self.registry),
            len(self.context.records.open_operations()),
            extra={"action": "leading"},
        )
        self.context.events.publish("leader.acquired", f"This orchestrator leads, epoch {self.lease.epoch}")
        for name, body in (
            ("signals", self.signals.run()),
            ("scaling", self.loop.run()),
            ("liveness", self.liveness.run()),
            ("repair", self._sweeps()),
        ):
            self._tasks.append(asyncio.create_task(body, name=name))

    async def follow(self) -> None:
        """Stop acting, at once; what was under way is taken up by the next ``lead``."""
        was, self._loaded = self._loaded, False
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.executor.close()
        if was:
            self.context.events.publish("leader.lost", "This orchestrator does not lead any more")
            log.warning("ResourceManager does not lead any more; scaling stops", extra={"action": "not_leading"})

    def broken(self) -> BaseException | None:
        """The error of a loop that ended by itself: a defect, after which the process must not go on."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                return task.exception() or RuntimeError(f"{task.get_name()} ended")
        return None

    def reload(self, settings: Settings) -> None:
        """Settings whose live keys changed."""
        self.the_pools.look_for_left()
        self.settings = settings
        self.registry.default_interval = settings.orchestrator.heartbeat_interval_seconds
        for name in self.the_pools.names():
            self.loop.wake(name)

    async def _sweeps(self) -> None:
        pruned = float("-inf")
        while True:
            try:
                await self.repair.sweep()
                now = self._clock.monotonic()
                if now - pruned >= _PRUNE_SECONDS:
                    pruned = now
                    await self.secrets.prune(now=self._clock.now())
            except Unavailable as error:
                log.debug("The sweep waits for the store: %s", error)
            await self._clock.sleep(_SWEEP_SECONDS)

    def _hinted(self, subject: str, _payload: bytes) -> None:
        self.executor.wake(subject.rpartition(".")[2])


def _callback(base_url: Callable[[], str] | None) -> Callable[[str], str | None]:
    def url(op_id: str) -> str | None:
        return None if base_url is None else f"{base_url()}/api/v1/operations/{op_id}/status"

    return url
