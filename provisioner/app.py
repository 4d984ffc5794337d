"""The provisioner's composition root: everything is made here and handed to what needs it."""

from __future__ import annotations

import logging
import os
from contextlib import AsyncExitStack
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp

from provisioner.engine import environment
from provisioner.engine.ansible import AnsibleEngine
from provisioner.engine.blueprints import Blueprints
from provisioner.engine.forkserver import ForkServer
from provisioner.engine.project import Project, default_root
from provisioner.hints import cancel_on_hint
from provisioner.http import reading, webhooks
from provisioner.inventory import TargetLister
from provisioner.jobs import owner
from provisioner.jobs.execute import Executor, Site
from provisioner.jobs.logfile import LogHub
from provisioner.jobs.store import JobStore
from provisioner.jobs.upkeep import Upkeep
from provisioner.jobs.worker import Worker
from provisioner.joining import OrchestratorJoins
from provisioner.limits import Limits
from provisioner.metrics import Metrics
from provisioner.redact import Redactor
from provisioner.secrets import Secrets
from provisioner.webhook.epochs import Epochs
from provisioner.webhook.farewell import Farewells
from provisioner.webhook.intake import Intake
from provisioner.webhook.unsigned import UnsignedIntake
from secbeat import bus as nats
from secbeat import subjects
from secbeat.api import build_app, listen
from secbeat.auth import TokenBook
from secbeat.clock import SystemClock
from secbeat.errors import ConfigError
from secbeat.paths import StateDir, default_state_dir
from secbeat.service import Stop, Tasks
from secbeat.settings import Loaded, ProvisionerSettings, Settings, split_address
from secbeat.store import Unavailable
from secbeat.wire.jobs import JobRecord

log = logging.getLogger("provisioner")


async def main(stop: Stop, loaded: Loaded) -> int:
    """Run until ``stop``; the exit code.

    Raises:
        ConfigError: the service cannot start as it is configured.
    """
    os.umask(0o077)
    settings = loaded.settings
    _check_binding(settings.provisioner)
    state = StateDir(settings.provisioner.state_dir or default_state_dir()).ensure()
    async with AsyncExitStack() as stack:
        return await _serve(stop, settings, state, stack)


async def _serve(stop: Stop, settings: Settings, state: StateDir, stack: AsyncExitStack) -> int:
    ours, clock = settings.provisioner, SystemClock()
    # First what needs no network: a broken configuration is reported whether NATS runs or not.
    secrets = Secrets.load(ours, settings.nats, state.secrets)
    redactor = Redactor(secrets.values())
    project = Project(ours.project_dir or default_root())
    blueprints = Blueprints(settings.blueprints, project, state.path / "revisions")
    blueprints.check()
    hub = LogHub(_directory(state.jobs))
    tokens = TokenBook.load(ours.tokens_file or state.tokens_file, clock=clock)

    forks = ForkServer(environment.base())
    await forks.start()
    stack.push_async_callback(forks.close)
    session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
    bus = await nats.connect(settings.nats, name="provisioner")
    stack.push_async_callback(bus.close)
    try:
        bucket, queue = await bus.bucket(subjects.JOBS_BUCKET), await bus.queue()
    except Unavailable as error:
        raise ConfigError("STATE_UNAVAILABLE", why=f"the bucket and queue of jobs cannot be opened: {error}") from None

    metrics, limits = Metrics(), Limits(ours, clock)
    store = JobStore(bucket, bus.messaging, clock)
    lister = TargetLister(state.machines, clock)
    executor = Executor(
        store=store,
        engine=AnsibleEngine(forks),
        blueprints=blueprints,
        joins=OrchestratorJoins(ours.orchestrator_url, secrets.service_token, session),
        lister=lister,
        limits=limits,
        hub=hub,
        site=Site(state.machines, state.jobs, ours.orchestrator_url),
        redactor=redactor,
        clock=clock,
    )
    intake = Intake(store=store, queue=queue, limits=limits, blueprints=blueprints, epochs=Epochs(bucket), clock=clock)
    unsigned = UnsignedIntake(
        intake=intake,
        store=store,
        bucket=bucket,
        pool=ours.unsigned_pool,
        blueprint=_unsigned_blueprint(settings, blueprints),
        clock=clock,
    )
    farewells = Farewells(store=store, intake=unsigned, messaging=bus.messaging, clock=clock)

    async def job_ended(job: JobRecord) -> None:
        metrics.job_ended(job)
        await farewells.job_ended(job)

    worker = Worker(
        queue=queue,
        store=store,
        executor=executor,
        limits=limits,
        hub=hub,
        settings=ours,
        parallel={name: one.max_parallel_jobs for name, one in settings.blueprints.items()},
        clock=clock,
        owner=owner.this_process(),
        on_ended=job_ended,
    )
    metrics.bind(limits, lambda: len(worker.running), lambda: forks.restarts)
    retention = timedelta(days=ours.result_retention_days)
    upkeep = Upkeep(
        store=store, queue=queue, worker=worker, limits=limits, hub=hub,
        blueprints=blueprints, clock=clock, retention=retention,
    )  # fmt: skip
    await upkeep.recover()

    def checks() -> dict[str, str | None]:
        return {
            "nats": None if bus.connected else "not connected to NATS",
            "engine": None if forks.pid is not None else "the fork server is being started again",
            "state": None if os.access(state.jobs, os.W_OK) else f"{state.jobs} cannot be written",
        }

    door = webhooks.Webhooks(
        intake=intake,
        unsigned=unsigned,
        secrets=secrets.webhook,
        senders=ours.unsigned_senders,
        tolerance_seconds=ours.timestamp_tolerance_seconds,
        clock=clock,
        metrics=metrics,
    )
    views = reading.Reading(store=store, worker=worker, hub=hub, blueprints=blueprints, lister=lister)
    app = build_app(
        "provisioner",
        [*webhooks.routes(door), *reading.routes(views, checks, metrics.serve)],
        tokens=tokens,
        allowed_hosts=ours.allowed_hosts,
        max_body=webhooks.MAX_BODY,
    )
    listener = await listen(app, ours.listen_addr, tls=ours.tls)
    stack.push_async_callback(listener.close)
    tasks = Tasks(stop)
    stack.push_async_callback(tasks.close, 30.0)
    tasks.spawn("worker", worker.run())
    tasks.spawn("upkeep", upkeep.run())
    tasks.spawn("farewells", farewells.run())
    tasks.spawn("fork server", forks.watch())
    tasks.spawn("cancel requests", cancel_on_hint(bus.messaging, worker))
    log.info(
        "Listening at %s with blueprints %s", listener.url, ", ".join(blueprints.names()), extra={"action": "listening"}
    )
    await stop.wait()
    return 0


def _directory(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("STATE_NOT_WRITABLE", why=f"{path}: {error.strerror}") from None
    return path


def _check_binding(settings: ProvisionerSettings) -> None:
    host, _ = split_address(settings.listen_addr)
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not (loopback or settings.allow_plaintext or settings.tls.cert_file is not None):
        why = f"provisioner.listen_addr is {settings.listen_addr}, without TLS"
        raise ConfigError("BIND_INSECURE", why=why)


def _unsigned_blueprint(settings: Settings, blueprints: Blueprints) -> str:
    """The blueprint of the pool that unsigned requests mean; a provisioner alone knows no pools, but blueprints."""
    pool = settings.pools.get(settings.provisioner.unsigned_pool)
    if pool is not None and pool.blueprint in blueprints:
        return pool.blueprint
    return "default" if "default" in blueprints else blueprints.names()[0]
