"""The node's composition root: builds the parts, runs them, and ends them in the order that loses no request."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from node import checks, drain, management, metrics
from node.agent import Agent
from node.commands import Commands
from node.dataplane import drivers
from node.drain import Drain
from node.heartbeats import Beats
from node.identity import IdentityStore, new_boot_id
from node.link import Link, Responder, connector
from node.load import Sampler
from node.load.cpu import meter
from node.membership import Membership
from node.rules import RulesFollower
from secbeat import subjects
from secbeat.api import Listener, listen, metrics_app
from secbeat.bus import NodeCredentials
from secbeat.clock import SystemClock
from secbeat.errors import ConfigError, SecbeatError
from secbeat.paths import StateDir, default_state_dir
from secbeat.service import Stop, Tasks
from secbeat.settings import Loaded, NodeSettings, Settings, load, split_address
from secbeat.wire.registration import Listening

log = logging.getLogger("node")


async def main(stop: Stop, loaded: Loaded) -> int:
    """Run a node until it is told to leave and has left; the exit code.

    Raises:
        SecbeatError: what keeps it from starting, with its remedy.
    """
    settings = loaded.settings
    checks.check_addresses(settings.node, settings.management)
    state = _state_directory(settings.node)
    try:
        return await _Node(settings, loaded.path, state.path).run(stop)
    finally:
        state.unlock()


def _state_directory(settings: NodeSettings) -> StateDir:
    state = StateDir(settings.state_dir or default_state_dir() / "node")
    try:
        return state.lock()
    except ConfigError as error:
        if error.code != "STATE_IN_USE":
            raise
        raise ConfigError(
            "STATE_IN_USE",
            why=f"{state.path} is in use by another node",
            fix="Give each node a directory of its own: [node] state_dir",
        ) from None


class _Node:
    """The parts of a node and how they hang together."""

    def __init__(self, settings: Settings, config: Path | None, state: Path) -> None:
        self._settings, self._config = settings, config
        self._clock = SystemClock()
        self._started = self._clock.monotonic()
        self._boot_id = new_boot_id()
        self._configured_token = checks.configured_token(settings.management)
        self._record_file = state / "drain.json"
        self._store = IdentityStore(state)
        self._management: Listener | None = None
        self._metrics: Listener | None = None
        node, manage = settings.node, settings.management
        self._plane = drivers.make(node, state, longest_drain=manage.shutdown_grace_period)
        self._drain = Drain(
            self._plane,
            self._clock,
            boot_id=self._boot_id,
            record_file=self._record_file,
            longest=manage.shutdown_grace_period,
            propagation=node.propagation_seconds,
            on_change=self._poke,
        )
        self._sampler = Sampler(
            self._plane, meter(node.cpu_allowance, beside=lambda: self._plane.processes), self._clock
        )
        self._membership = Membership(
            node,
            self._store,
            self._clock,
            boot_id=self._boot_id,
            listening=self._listening,
            listens_on=split_address(manage.listen_addr)[0],
            on_renewed=self._renew_link,
        )
        self._rules = RulesFollower(
            self._plane,
            self._clock,
            source=lambda: self._membership.orchestrator,
            token=lambda: self._store.management_token,
            on_complete=lambda: self._plane.hold(None),
        )
        self._plane.hold("the blocklist has not been read yet")
        self._commands = Commands(
            self._drain,
            self._store,
            boot_id=self._boot_id,
            member=lambda: self._membership.member,
            on_blocklist=self._rules.notice,
        )
        self._link = Link(
            connector(settings.nats, f"node {node.pool}", self._nats_access),
            self._clock,
            respond=self._answers,
            on_refused=self._membership.refused,
            on_connected=self._poke,
        )
        self._agent = Agent(
            membership=self._membership,
            link=self._link,
            rules=self._rules,
            beats=Beats(self._boot_id, self._clock),
            sampler=self._sampler,
            plane=self._plane,
            drain=self._drain,
            clock=self._clock,
        )

    # ------------------------------------------------------------------------------------------ what parts ask of parts

    def _poke(self) -> None:
        self._agent.poke()

    def _renew_link(self) -> None:
        self._link.renew()

    def _listening(self) -> Listening:
        return Listening(
            proxy_port=self._plane.port,
            management_port=self._management.port if self._management else 0,
            metrics_port=self._metrics.port if self._metrics else 0,
        )

    def _token(self) -> str | None:
        return self._configured_token if self._membership.legacy else self._store.management_token

    def _nats_access(self) -> tuple[str | None, NodeCredentials | None]:
        kept = self._store.kept
        if kept is None:
            return None, None
        user = NodeCredentials(kept.nats_jwt.get_secret_value(), self._store.keys.seed) if kept.nats_jwt else None
        return kept.nats_url, user

    def _answers(self) -> tuple[str, Responder] | None:
        # Without a join nobody has proved on NATS that he may command this node.
        kept = self._store.kept
        return None if kept is None else (subjects.commands(kept.node_id), self._commands.by_nats)

    # --------------------------------------------------------------------------------------------------------- its life

    async def run(self, stop: Stop) -> int:
        self._membership.prepare()
        if self._membership.legacy:
            checks.require_token(self._settings.management, self._configured_token)
        async with AsyncExitStack() as stack:
            tasks = Tasks(stop)
            await self._listen(stack)
            stack.push_async_callback(self._membership.orchestrator.close)
            stack.push_async_callback(self._link.close)
            stack.push_async_callback(tasks.close)
            self._go_on_draining()
            refused = await self._live(stop, tasks)
            if refused is not None:
                raise refused
            await self._agent.goodbye()
        return 0

    async def _listen(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._plane.end)
        await self._plane.start()
        node, manage = self._settings.node, self._settings.management
        registry = metrics.registry(self._plane, self._sampler, self._drain)
        self._metrics = await listen(metrics_app(registry), node.metrics_addr)
        stack.push_async_callback(self._metrics.close)
        if manage.enabled:
            self._management = await listen(management.build(self._facts(), self._token), manage.listen_addr)
            stack.push_async_callback(self._management.close)
        log.info(
            "Proxy on %s:%d, backend %s, driver %s",
            split_address(node.listen_addr)[0],
            self._plane.port,
            node.backend,
            node.driver,
            extra={"action": "listening", "management": self._management.url if self._management else "off"},
        )

    def _facts(self) -> management.Facts:
        return management.Facts(
            commands=self._commands,
            drain=self._drain,
            plane=self._plane,
            sampler=self._sampler,
            member=lambda: self._membership.member,
            boot_id=self._boot_id,
            clock=self._clock,
            started=self._started,
            allow_legacy_terminate=self._settings.management.allow_legacy_terminate,
        )

    def _go_on_draining(self) -> None:
        """An ordered drain outlives a crash: a node that was told to leave does not come back into service."""
        if left := drain.interrupted(self._record_file, self._clock):
            seconds, reason = left
            self._drain.begin(reason=f"{reason} (ordered before a restart)", seconds=seconds)

    async def _live(self, stop: Stop, tasks: Tasks) -> SecbeatError | None:
        """Serve until the drain is over; or the sentence with which the orchestrator refused this node."""
        draining = asyncio.create_task(self._drain.run(), name="drain")
        agent = asyncio.create_task(self._agent.run(tasks), name="agent")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        tasks.spawn("reload", self._reload(stop))
        try:
            await asyncio.wait({draining, agent, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if agent.done() and (error := agent.exception()) is not None:
                if isinstance(error, SecbeatError):
                    return error
                log.error("The agent failed", exc_info=error, extra={"action": "agent_failed"})
                stop.failed = error
            if not draining.done():
                await self._leave(stop, draining, stopping)
            stop.request("drained")
        finally:
            for task in (agent, stopping, draining):
                task.cancel()
            await asyncio.gather(agent, stopping, draining, return_exceptions=True)
        return None

    async def _leave(self, stop: Stop, draining: asyncio.Task[drain.Outcome], stopping: asyncio.Task[None]) -> None:
        """SIGTERM (or a failed part) is a drain; a second signal ends it."""
        if stopping.done():
            loop = asyncio.get_running_loop()
            with suppress(ValueError, RuntimeError):  # not the main thread: no signals, nothing to replace
                loop.add_signal_handler(signal.SIGTERM, self._drain.hurry)
        self._drain.begin(reason=stop.reason or "a part of the node failed", ordered=False)
        if self._membership.member is None and not self._plane.in_flight:
            self._drain.hurry()  # nobody has been told of this node yet
        await draining

    async def _reload(self, stop: Stop) -> None:
        """SIGHUP: the live keys of the file."""
        while True:
            await stop.reload.wait()
            stop.reload.clear()
            try:
                settings = load(self._config).settings
            except SecbeatError as error:
                log.error("Not reloaded: %s", error.why, extra={"action": "reload_refused"})  # noqa: TRY400 - a sentence
                continue
            self._plane.configure(_with_live_keys(self._settings.node, settings.node))
            self._drain.configure(
                longest=settings.management.shutdown_grace_period, propagation=settings.node.propagation_seconds
            )
            log.info("Configuration reloaded", extra={"action": "reloaded"})


def _with_live_keys(now: NodeSettings, wanted: NodeSettings) -> NodeSettings:
    live = [
        name
        for name, field in NodeSettings.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("reload") == "live"
    ]
    return now.model_copy(update={name: getattr(wanted, name) for name in live})
