"""The provisioner's composition root: what touches the outside is opened here, `Parts` wires the rest to it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from provisioner.engine import environment
from provisioner.engine.ansible import AnsibleEngine
from provisioner.engine.blueprints import Blueprints
from provisioner.engine.forkserver import ForkServer, ForkServerLost
from provisioner.engine.project import Project, default_root
from provisioner.hints import cancel_on_hint
from provisioner.jobs.logfile import LogHub
from provisioner.joining import OrchestratorJoins
from provisioner.parts import Parts
from provisioner.reloading import Tokens, reload_on_request
from provisioner.secrets import Secrets
from secbeat import binding, subjects
from secbeat import bus as nats
from secbeat.api import listen
from secbeat.auditing import Audit
from secbeat.clock import SystemClock
from secbeat.errors import ConfigError
from secbeat.paths import StateDir, default_state_dir
from secbeat.service import Stop, Tasks
from secbeat.settings import Loaded
from secbeat.store import Unavailable
from secbeat.telemetry.certificates import expiry
from secbeat.telemetry.opening import open_tracing

log = logging.getLogger("provisioner")

# A job that does not end by itself is killed after 15 s.
_PREDECESSOR_SECONDS = 20.0


async def main(stop: Stop, loaded: Loaded) -> int:
    """Run until ``stop``; the exit code.

    Raises:
        ConfigError: the service cannot start as it is configured.
    """
    os.umask(0o077)
    settings = loaded.settings
    binding.check_provisioner(settings.provisioner)
    state = StateDir(settings.provisioner.state_dir or default_state_dir()).ensure()
    await _alone(state)
    try:
        async with AsyncExitStack() as stack:
            return await _serve(stop, loaded, state, stack)
    finally:
        state.unlock()


async def _alone(state: StateDir) -> None:
    """Hold the directory: two on one would take each other's running jobs for abandoned ones.

    The service of a killed ``secbeat up`` ends in order, and its jobs with it: it gets the time for that.

    Raises:
        ConfigError: STATE_IN_USE, when the time is over.
    """
    deadline, told = time.monotonic() + _PREDECESSOR_SECONDS, False
    while True:
        try:
            state.lock("provisioner.lock", "another provisioner")
        except ConfigError as error:
            if error.code != "STATE_IN_USE" or time.monotonic() > deadline:
                raise
            if not told:
                log.warning("%s: waiting for its end", error.why, extra={"action": "waiting"})
            told = True
            await asyncio.sleep(0.1)
        else:
            return


async def _serve(stop: Stop, loaded: Loaded, state: StateDir, stack: AsyncExitStack) -> int:
    settings = loaded.settings
    # First what needs no network: a broken configuration is reported whether NATS runs or not.
    secrets = Secrets.load(settings.provisioner, settings.nats, state.secrets)
    tokens = Tokens(settings.provisioner.tokens_file or state.tokens_file)
    project = Project(settings.provisioner.project_dir or default_root())
    blueprints = Blueprints(settings.blueprints, project, state.path / "revisions")
    blueprints.check()
    hub = LogHub(_directory(state.jobs))
    tracing = open_tracing("provisioner", settings.telemetry)
    stack.push_async_callback(tracing.close)

    forks = ForkServer(environment.base(), state.path / "jobs.lock")
    try:
        home = environment.substitute_home(state.path / "home")
        await forks.start()
    except OSError as error:
        raise ConfigError("STATE_NOT_WRITABLE", why=f"{error.filename}: {error.strerror}") from None
    except ForkServerLost as error:
        raise ConfigError("STATE_IN_USE", why=f"{state.path}: {error}") from None
    stack.push_async_callback(forks.close)
    session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
    bus = await nats.connect(settings.nats, name="provisioner")
    stack.push_async_callback(bus.close)
    try:
        bucket, queue = await bus.bucket(subjects.JOBS_BUCKET), await bus.queue()
    except Unavailable as error:
        raise ConfigError("STATE_UNAVAILABLE", why=f"the bucket and queue of jobs cannot be opened: {error}") from None

    joins = OrchestratorJoins(settings.provisioner.orchestrator_url, secrets.service_token, session)
    parts = Parts(
        settings=settings,
        state=state,
        secrets=secrets,
        blueprints=blueprints,
        hub=hub,
        engine=AnsibleEngine(forks, home=home),
        joins=joins,
        bucket=bucket,
        queue=queue,
        messaging=bus.messaging,
        clock=SystemClock(),
        tracing=tracing,
    )
    parts.metrics.bind_restarts(lambda: forks.restarts)
    parts.metrics.bind_certificate(expiry(settings.provisioner.tls.cert_file))
    await parts.upkeep.recover()

    def checks() -> dict[str, str | None]:
        return {
            "nats": None if bus.connected else "not connected to NATS",
            "engine": None if forks.pid is not None else "the fork server is being started again",
            "state": None if os.access(state.jobs, os.W_OK) else f"{state.jobs} cannot be written",
        }

    audit = Audit(clock=SystemClock(), ledger=bus.ledger_of_the_orchestrator(), service="provisioner")
    listener = await listen(
        parts.application(tokens.check, checks, audit), settings.provisioner.listen_addr, tls=settings.provisioner.tls
    )
    stack.push_async_callback(listener.close)
    tasks = Tasks(stop)
    stack.push_async_callback(tasks.close, 30.0)
    tasks.spawn("audit", audit.run(stop))
    tasks.spawn("worker", parts.worker.run())
    tasks.spawn("upkeep", parts.upkeep.run())
    tasks.spawn("farewells", parts.farewells.run())
    tasks.spawn("fork server", forks.watch())
    tasks.spawn("reload", reload_on_request(stop, loaded, tokens, parts.retune))
    tasks.spawn("cancel requests", cancel_on_hint(bus.messaging, parts.worker))
    names = ", ".join(blueprints.names())
    log.info("Listening at %s with blueprints %s", listener.url, names, extra={"action": "listening"})
    await stop.wait()
    return 0


def _directory(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("STATE_NOT_WRITABLE", why=f"{path}: {error.strerror}") from None
    return path
