"""How the parts of the provisioner are put together; whatever touches the outside is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from aiohttp import web

from provisioner.engine.base import Engine
from provisioner.engine.blueprints import Blueprints
from provisioner.http import reading, webhooks
from provisioner.http.examples import EXAMPLES
from provisioner.inventory import TargetLister
from provisioner.jobs import owner
from provisioner.jobs.attempts import Attempts
from provisioner.jobs.execute import Executor, Site
from provisioner.jobs.logfile import LogHub
from provisioner.jobs.store import JobStore
from provisioner.jobs.upkeep import Upkeep
from provisioner.jobs.worker import Worker
from provisioner.joining import JoinSource
from provisioner.limits import Limits
from provisioner.metrics import Metrics
from provisioner.redact import Redactor
from provisioner.secrets import Secrets
from provisioner.tracing import JobTracing
from provisioner.webhook.epochs import Epochs
from provisioner.webhook.farewell import Farewells
from provisioner.webhook.intake import Intake
from provisioner.webhook.unsigned import UnsignedIntake
from secbeat.api import build_app
from secbeat.auditing import Audit
from secbeat.auth import Principal
from secbeat.clock import Clock
from secbeat.paths import StateDir
from secbeat.settings import Settings
from secbeat.store import Bucket, Messaging, WorkQueue
from secbeat.telemetry.tracing import OFF, Tracing
from secbeat.wire.jobs import JobRecord


class Parts:
    """Everything of one service but sockets and processes."""

    def __init__(
        self,
        *,
        settings: Settings,
        state: StateDir,
        secrets: Secrets,
        blueprints: Blueprints,
        hub: LogHub,
        engine: Engine,
        joins: JoinSource,
        bucket: Bucket,
        queue: WorkQueue,
        messaging: Messaging,
        clock: Clock,
        tracing: Tracing = OFF,
    ) -> None:
        ours = settings.provisioner
        self.settings, self.blueprints, self.hub = settings, blueprints, hub
        self.metrics, self.limits = Metrics(), Limits(ours, clock)
        self.store = JobStore(bucket, messaging, clock)
        self.lister = TargetLister(state.machines, clock)
        self.intake = Intake(
            store=self.store, queue=queue, limits=self.limits, blueprints=blueprints, epochs=Epochs(bucket), clock=clock
        )
        self.unsigned = UnsignedIntake(
            intake=self.intake, store=self.store, bucket=bucket, pool=ours.unsigned_pool,
            blueprint=self._unsigned_blueprint(), clock=clock,
        )  # fmt: skip
        self.farewells = Farewells(store=self.store, intake=self.unsigned, messaging=messaging, clock=clock)
        self.unsigned.on_given_up = self.farewells.given_up
        self.spans = JobTracing(tracing, clock, lambda op_id: hub.directory(op_id) / "events.jsonl")
        engine = self.spans.around(engine, self.store.seen)
        executor = Executor(
            store=self.store, engine=engine, blueprints=blueprints, joins=joins, lister=self.lister, limits=self.limits,
            hub=hub, site=Site(state.machines, state.jobs, ours.orchestrator_url), redactor=Redactor(secrets.values()),
            clock=clock,
        )  # fmt: skip
        self.attempts = Attempts(
            store=self.store, executor=executor, limits=self.limits, hub=hub, clock=clock, owner=owner.this_process(),
            on_ended=self._job_ended, on_left_behind=self.spans.left_behind,
        )  # fmt: skip
        self.worker = Worker(
            queue=queue, store=self.store, attempts=self.attempts, settings=ours, parallel=_parallel(settings),
            clock=clock,
        )  # fmt: skip
        self.intake.on_written = self.worker.start_now
        self.upkeep = Upkeep(
            store=self.store, queue=queue, worker=self.worker, limits=self.limits, hub=hub, blueprints=blueprints,
            clock=clock, retention=timedelta(days=ours.result_retention_days),
        )  # fmt: skip
        self.door = webhooks.Webhooks(
            intake=self.intake, unsigned=self.unsigned, secrets=secrets.webhook, senders=ours.unsigned_senders,
            tolerance_seconds=ours.timestamp_tolerance_seconds, clock=clock, metrics=self.metrics,
        )  # fmt: skip

        self.metrics.bind(self.limits, lambda: len(self.attempts.running))

    async def _job_ended(self, job: JobRecord) -> None:
        self.metrics.job_ended(job)
        self.spans.ended(job)
        await self.farewells.job_ended(job)

    def _unsigned_blueprint(self) -> str:
        """That of the pool which unsigned requests mean; a provisioner alone knows no pools, but blueprints."""
        pool = self.settings.pools.get(self.settings.provisioner.unsigned_pool)
        if pool is not None and pool.blueprint in self.blueprints:
            return pool.blueprint
        return "default" if "default" in self.blueprints else self.blueprints.names()[0]

    def application(
        self,
        tokens: Callable[[str], Principal | None],
        checks: Callable[[], Mapping[str, str | None]],
        audit: Audit | None = None,
    ) -> web.Application:
        """The HTTP application."""
        views = reading.Reading(
            store=self.store, worker=self.worker, hub=self.hub, blueprints=self.blueprints, lister=self.lister
        )
        return build_app(
            "provisioner",
            [*webhooks.routes(self.door), *reading.routes(views, checks, self.metrics.serve)],
            tokens=tokens,
            allowed_hosts=self.settings.provisioner.allowed_hosts,
            max_body=webhooks.MAX_BODY,
            examples=EXAMPLES,
            on_audit=None if audit is None else audit.on_request,
        )

    def retune(self, new: Settings) -> None:
        """Take over the live keys of a reload."""
        self.settings = new
        self.limits.retune(new.provisioner)
        self.blueprints.replace(new.blueprints)
        self.worker.resize(new.provisioner.max_concurrent_jobs, _parallel(new))
        self.door.tolerance_seconds = new.provisioner.timestamp_tolerance_seconds
        self.upkeep.retention = timedelta(days=new.provisioner.result_retention_days)


def _parallel(settings: Settings) -> dict[str, int]:
    return {name: one.max_parallel_jobs for name, one in settings.blueprints.items()}
