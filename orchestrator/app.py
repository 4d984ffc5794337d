"""The orchestrator's composition root: everything is made here and handed to what needs it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper

from orchestrator.core import Core, Stores
from orchestrator.events import EventHub
from orchestrator.fleet.registry import Registry, legacy_unit
from orchestrator.http import Audit, build
from orchestrator.joining.credentials import CredentialIssuer, Minter, NodeTokens, legacy_token, master_key
from orchestrator.leading import Leading
from orchestrator.memory import settle
from orchestrator.metrics import Metrics
from orchestrator.notifying import open_notifier, signing_secret
from orchestrator.operations.management import NodeClient
from orchestrator.operations.webhook import WebhookClient
from orchestrator.reconcile.reloading import reread
from orchestrator.rules import Protected, Rules
from secbeat import binding, signing, subjects
from secbeat import bus as nats
from secbeat.api import listen, metrics_app
from secbeat.auth import Principal, TokenBook, read_secret
from secbeat.bus import identity
from secbeat.clock import SystemClock
from secbeat.errors import ConfigError
from secbeat.paths import StateDir, default_state_dir
from secbeat.service import Stop, Tasks
from secbeat.settings import Loaded, NatsSettings, OrchestratorSettings, Settings, split_address
from secbeat.store import Messaging
from secbeat.telemetry.certificates import expiry
from secbeat.telemetry.opening import open_tracing

log = logging.getLogger("orchestrator")

_EVENTS_WAITING = 10_000
_MEASURE_SECONDS = 30.0


@dataclass(frozen=True)
class Secrets:
    """What is read from files before anything is connected."""

    master: bytes
    legacy_token: str | None
    webhook: str | None
    bearer: str | None
    notifications: str | None
    mint: Minter | None

    @classmethod
    def load(cls, settings: Settings, state: StateDir) -> Secrets:
        """Read them.

        Raises:
            ConfigError: SECRET_UNREADABLE, SECRET_PLACEHOLDER, CONFIG_INVALID.
        """
        ours = settings.orchestrator
        configured, default = ours.webhook_secret_file, state.secrets / "webhook.secret"
        webhook_file = configured or (default if default.exists() else None)
        webhook = None if webhook_file is None else read_secret(webhook_file)
        if webhook is not None:
            try:
                signing.check_secret(webhook)
            except ValueError as error:
                raise ConfigError("SECRET_UNREADABLE", why=f"{webhook_file}: {error}") from None
        return cls(
            master=master_key(state.secrets / "master.key"),
            legacy_token=legacy_token(settings.management),
            webhook=webhook,
            bearer=None if ours.webhook_bearer_token_file is None else read_secret(ours.webhook_bearer_token_file),
            notifications=signing_secret(settings.notifications),
            mint=_minter(settings.nats),
        )


async def main(stop: Stop, loaded: Loaded) -> int:
    """Run until ``stop``; the exit code.

    Raises:
        ConfigError: the service cannot start as it is configured.
    """
    os.umask(0o077)
    binding.check_orchestrator(loaded.settings.orchestrator)
    state = StateDir(loaded.settings.orchestrator.state_dir or default_state_dir()).ensure()
    held = _only_one(state)
    try:
        async with AsyncExitStack() as stack:
            return await _serve(stop, loaded, state, stack)
    finally:
        held.close()


async def _serve(stop: Stop, loaded: Loaded, state: StateDir, stack: AsyncExitStack) -> int:
    settings, clock = loaded.settings, SystemClock()
    ours = settings.orchestrator
    # First what needs no network: a broken configuration is reported whether NATS runs or not.
    secrets = Secrets.load(settings, state)
    tokens = _Tokens(ours, state)
    tracing = open_tracing("orchestrator", settings.telemetry)
    stack.push_async_callback(tracing.close)

    bus = await nats.connect(settings.nats, name="orchestrator", on_closed=partial(_closed, stop))
    stack.push_async_callback(bus.close)
    lease = await bus.lease(f"{socket.gethostname()}:{state.path.resolve()}")
    ledger = await bus.ledger(ours.ledger_max_age_days)
    stores = Stores(
        state=await bus.fenced(subjects.STATE_BUCKET, lease), jobs=await bus.bucket(subjects.JOBS_BUCKET), ledger=ledger
    )

    events, metrics = EventHub(clock), Metrics()
    registry = Registry(clock=clock, default_interval=ours.heartbeat_interval_seconds)
    audit = Audit(clock=clock, ledger=ledger)
    rules = Rules(
        bucket=stores.state,
        lease=lease,
        messaging=bus.messaging,
        clock=clock,
        followers=registry.nodes,
        protected=Protected(
            [*ours.never_block, *settings.node.trusted_proxies],
            hosts=[split_address(ours.listen_addr)[0]],
            nodes=registry.nodes,
        ),
        events=events,
    )
    current = _Current(settings)
    webhooks = WebhookClient(
        clock=clock,
        timeout_seconds=lambda: current.settings.orchestrator.webhook_timeout_seconds,
        secret=secrets.webhook,
        bearer=secrets.bearer,
    )
    stack.push_async_callback(webhooks.close)
    node_tokens = NodeTokens(secrets.master, secrets.legacy_token)
    nodes = NodeClient(networks=lambda: ours.node_networks, messaging=bus.messaging)
    stack.push_async_callback(nodes.close)
    core = Core(
        settings=settings,
        stores=stores,
        lease=lease,
        messaging=bus.messaging,
        registry=registry,
        clock=clock,
        events=events,
        metrics=metrics,
        webhooks=webhooks,
        nodes=nodes,
        issuer=CredentialIssuer(node_tokens, settings.nats, secrets.mint),
        audit=audit.add,
        file=None if loaded.path is None else loaded.path.absolute(),
        base_url=lambda: current.url,
        on_superseded=lambda epoch: leading.superseded(epoch),  # noqa: PLW0108 - made below, with the core
        scheme="https" if ours.tls.cert_file is not None else "http",
        tracing=tracing,
    )
    core.context.records.on_loaded = settle
    leading = Leading(core, lease, clock)
    streams: dict[str, tuple[int, int]] = {}
    metrics.bind(
        # Told by the leader alone: what a follower remembers is old, and a sum over both would count nodes twice.
        pools=lambda: core.pools() if core.leader else (),
        operations=lambda: core.operations(open_only=True) if core.leader else (),
        fleet=lambda: registry.stats() if core.leader else {},
        heartbeats=lambda: registry.counters,
        leader=lambda: core.leader,
        epoch=lambda: lease.epoch,
        nats_connected=lambda: bus.connected,
        nats_errors=lambda: bus.errors,
        streams=lambda: streams,
        ledger=lambda: (core.decisions_log.waiting, core.decisions_log.lost),
        certificate=expiry(ours.tls.cert_file),
        followers=lambda: events.followers,
        blocked_ips=lambda: len(rules),
    )
    app = build(
        control=core,
        registry=registry,
        rules=rules,
        events=events,
        audit=audit,
        clock=clock,
        tokens=tokens.check,
        allowed_hosts=ours.allowed_hosts,
        legacy_nodes=ours.legacy_nodes,
        legacy_unit=lambda pool: legacy_unit(core.the_pools.policy(pool).legacy_cpu_unit),
        webhook_secrets=lambda: () if secrets.webhook is None else (secrets.webhook,),
        checks=partial(_checks, core, bus),
        node_token=node_tokens.management,
    )
    listener = await listen(app, ours.listen_addr, tls=ours.tls)
    stack.push_async_callback(listener.close)
    current.url = listener.url
    scrape = await listen(metrics_app(metrics.registry), ours.metrics_addr)
    stack.push_async_callback(scrape.close)

    await bus.messaging.subscribe(subjects.HEARTBEATS, registry.on_frame, hot=True)
    await core.start()
    tasks, lease_stop = Tasks(stop), Stop()
    stack.push_async_callback(tasks.close)
    tasks.spawn("events", _forward(events, bus.messaging))
    tasks.spawn("audit", audit.run(stop))
    _notify(core, secrets.notifications, events, tasks, stack)
    tasks.spawn("rules", rules.run(stop))
    tasks.spawn("usage", _measure(bus, streams))
    tasks.spawn("reload", _reload(stop, loaded, core, tokens, current))
    holding = tasks.spawn("lease", lease.run(lease_stop), eternal=False)
    log.info(
        "Listening at %s, metrics at %s; ResourceManager watches the scaling of pools %s",
        listener.url,
        scrape.url,
        ", ".join(settings.pools),
        extra={"action": "listening"},
    )
    try:
        await leading.run(stop)
    finally:
        # Acting ends first, then the lease is given up, so that the next one takes over at once and alone.
        lease_stop.request("the orchestrator ends")
        await asyncio.wait({holding}, timeout=3.0)
    return 0


@dataclass
class _Current:
    """What later becomes known or changes: the settings in force and our own address."""

    settings: Settings
    url: str = ""


class _Tokens:
    """The API tokens; SIGHUP reads them again."""

    def __init__(self, settings: OrchestratorSettings, state: StateDir) -> None:
        self._path = settings.tokens_file or state.tokens_file
        self._book = TokenBook.load(self._path)

    def check(self, token: str) -> Principal | None:
        return self._book.check(token)

    def reload(self) -> None:
        try:
            self._book = TokenBook.load(self._path)
        except ConfigError as error:
            log.warning("The API tokens are not reloaded: %s", error.why, extra={"action": "reload_refused"})


async def _reload(stop: Stop, loaded: Loaded, core: Core, tokens: _Tokens, current: _Current) -> None:
    flags = {key: _value(loaded.settings, key) for key, source in loaded.sources.items() if source.startswith("flag")}
    while True:
        await stop.reload.wait()
        stop.reload.clear()
        tokens.reload()
        settings = reread(loaded.path, core.settings, flags)
        if settings is not None:
            current.settings = settings
            core.reload(settings)


def _value(settings: Settings, dotted: str) -> object:
    found: object = settings
    for part in dotted.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


async def _forward(events: EventHub, messaging: Messaging) -> None:
    """Events to NATS, in order; what does not fit in the queue while NATS is away is not kept for later."""
    queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_EVENTS_WAITING)

    def put(subject: str, payload: bytes) -> None:
        if messaging.connected and not queue.full():
            queue.put_nowait((subject, payload))

    events.forward = put
    while True:
        await messaging.publish(*await queue.get())


async def _measure(bus: nats.Bus, streams: dict[str, tuple[int, int]]) -> None:
    """How full the streams are, for the metrics; a scrape itself never waits for NATS."""
    while True:
        streams.update(await bus.usage())
        await asyncio.sleep(_MEASURE_SECONDS)


def _checks(core: Core, bus: nats.Bus) -> Mapping[str, str | None]:
    return {
        "nats": None if bus.connected else "NATS is not connected: nothing in the fleet changes until it is back",
        "lease": None if core.leader else "this orchestrator does not lead (another one does, or none does yet)",
    }


def _closed(stop: Stop) -> None:
    stop.failed = stop.failed or ConnectionError("the NATS connection is closed for good")
    stop.request("the NATS connection is closed for good")


def _notify(core: Core, secret: str | None, events: EventHub, tasks: Tasks, stack: AsyncExitStack) -> None:
    notifier = open_notifier(core.settings.notifications, secret, core.context.records, core.context.clock)
    if notifier is not None:
        core.loop.on_evaluated = notifier.evaluated
        stack.push_async_callback(notifier.close)
        tasks.spawn("notifications", notifier.run())
        tasks.spawn("notified events", notifier.follow(events))


def _minter(settings: NatsSettings) -> Minter | None:
    """Makes NATS users for nodes, if this orchestrator holds the account's signing key.

    Raises:
        ConfigError: one of the two files without the other, or unreadable.
    """
    if settings.issuer_seed_file is None and settings.account_file is None:
        return None
    if settings.issuer_seed_file is None or settings.account_file is None:
        raise ConfigError("CONFIG_INVALID", why="nats.issuer_seed_file and nats.account_file belong together")
    seed, account = read_secret(settings.issuer_seed_file), read_secret(settings.account_file)
    mint: Callable[..., str] = identity.mint_node_user

    def minted(node_id: str, public_key: str, ttl_seconds: float, now: float) -> str:
        return mint(seed, account, node_id, public_key, ttl_seconds, now)

    return minted


def _only_one(state: StateDir) -> TextIOWrapper:
    """Hold ``orchestrator.lock`` for this process's life: the lease's holder is named after the directory.

    Raises:
        ConfigError: another orchestrator holds it (STATE_IN_USE).
    """
    try:
        handle = (state.path / "orchestrator.lock").open("a+")
    except OSError as error:
        raise ConfigError("STATE_NOT_WRITABLE", why=f"{state.path}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise ConfigError("STATE_IN_USE", why=f"{state.path} is in use by a running orchestrator") from None
    return handle
