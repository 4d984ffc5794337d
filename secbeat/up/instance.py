"""One running instance: NATS, orchestrator and provisioner on one state directory, started and stopped in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from secbeat import binding
from secbeat import settings as configuration
from secbeat.auth import Scope, write_secret
from secbeat.bus import identity as identities
from secbeat.bus.server import NatsServer
from secbeat.clock import wire_time
from secbeat.errors import SecbeatError, UnreachableError
from secbeat.paths import StateDir
from secbeat.settings import Loaded
from secbeat.up import guarding, planning, retiring, secrets
from secbeat.up.api import Api, resume_retired
from secbeat.up.children import Child
from secbeat.up.dying import died, is_error_line
from secbeat.up.ports import Reservations

T = TypeVar("T")

START_SECONDS = 60.0
_PREDECESSOR_SECONDS = 15.0
_STOP_SECONDS = 20.0
_QUICK_SECONDS = 3.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that an operator of the instance may want to know."""

    at: datetime
    kind: str
    sentence: str


class Instance:
    """NATS (unless the configuration names one), an orchestrator and a provisioner, each in a process of its own.

    A service that dies is restarted with backoff. `start` returns when everything is ready, `retire` when the local
    nodes are gone, `stop` when the processes are. As a context manager it starts, and at the end retires and stops.

    Args:
        state: the state directory; made if absent, kept afterwards.
        config: the user's configuration file.
        config_text: a configuration instead of a file.
        overrides: dotted settings over both.
        provisioner: False: the user runs a receiver of webhooks.
        free_ports: whatever the configuration says, listen on free ports of 127.0.0.1.
        on_happening: called for each `Happening`.
        on_line: called with a service's name and each line of its output.
    """

    def __init__(
        self,
        state: Path,
        *,
        config: Path | None = None,
        config_text: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        provisioner: bool = True,
        free_ports: bool = False,
        on_happening: Callable[[Happening], None] | None = None,
        on_line: Callable[[str, str], None] | None = None,
    ) -> None:
        self.state = StateDir(state.absolute())
        self.happenings: deque[Happening] = deque(maxlen=1000)
        self._config, self._config_text = config, config_text
        self._overrides = dict(overrides or {})
        self._with_provisioner, self._free_ports = provisioner, free_ports
        self._on_happening, self._on_line = on_happening, on_line
        self._reservations = Reservations()
        self._loaded: Loaded | None = None
        self._secrets: secrets.Secrets | None = None
        self._urls: planning.Urls | None = None
        self._api: Api | None = None
        self._nats: NatsServer | None = None
        self._children: dict[str, Child] = {}
        self._guards: list[asyncio.Task[None]] = []
        self._started = False

    # ------------------------------------------------------------------ what there is

    @property
    def loaded(self) -> Loaded:
        """The settings; from the start on."""
        return _present(self._loaded)

    @property
    def urls(self) -> planning.Urls:
        """Where the services answer; from the start on."""
        return _present(self._urls)

    @property
    def api(self) -> Api:
        """The orchestrator's API with the administrator's token; while it runs."""
        return _present(self._api)

    @property
    def tokens(self) -> Mapping[Scope, str]:
        """API tokens by scope."""
        return _present(self._secrets).tokens

    def token_file(self, scope: Scope = "admin") -> Path:
        """The file that holds a token."""
        return _present(self._secrets).token_file(scope)

    @property
    def nats_identity(self) -> identities.Identity | None:
        """The identity of the NATS server that belongs to the instance (credentials for role ``admin`` included)."""
        return _present(self._secrets).nats

    def pids(self) -> dict[str, int]:
        """The running service processes, NATS included when it is ours."""
        found = {name: child.pid for name, child in self._children.items()}
        if self._nats is not None:
            found["nats"] = self._nats.pid
        return {name: pid for name, pid in found.items() if pid is not None}

    # ------------------------------------------------------------------ start

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything and wait until it is ready.

        Raises:
            ConfigError: a broken set-up (CONFIG_…, PORT_IN_USE, STATE_…, NATS_…, SECRET_…), our own finding or that
                of a service.
            SecbeatError: SERVICE_DIED, SERVICE_NOT_READY. Nothing runs then.
        """
        self._loaded = self._load()
        binding.check_orchestrator(self._loaded.settings.orchestrator)
        if self._with_provisioner:
            binding.check_provisioner(self._loaded.settings.provisioner)
        self.state.lock()
        try:
            await self._start(self._loaded)
        except BaseException:
            await self.stop(retire=False)
            raise

    async def _start(self, loaded: Loaded) -> None:
        own_nats = planning.owns_nats(loaded)
        self._secrets = secrets.ensure(self.state, nats=own_nats)
        where = await self._addresses(loaded)
        nats_url = await self._start_nats(loaded) if own_nats else loaded.settings.nats.url
        self._urls = planning.urls(loaded, where, nats_url)
        self._api = Api(self._urls.orchestrator, self._secrets.tokens["admin"])
        services: list[planning.Service] = ["orchestrator"]
        if self._with_provisioner:
            services.append("provisioner")
        for service in services:
            extra = planning.environment(
                service, loaded, state=self.state, secrets=self._secrets, where=where, found=self._urls
            )
            self._children[service] = self._child(service, extra)
            await self._children[service].start()
        await self._wait_ready()
        self._started = True
        self._write_run_file()
        self._guards += [
            asyncio.create_task(guarding.keep(child, self._say), name=f"guard of {name}")
            for name, child in self._children.items()
        ]
        for pool in await resume_retired(self._api):
            self._say("pool.resumed", f"Pool {pool} works again: the last stop had retired it")

    def _load(self) -> Loaded:
        path = self._config
        if self._config_text is not None:
            path = self.state.ensure().path / "config.toml"
            write_secret(path, self._config_text)
        if self._free_ports:
            keys = ("orchestrator.listen_addr", "orchestrator.metrics_addr", "provisioner.listen_addr")
            self._overrides |= dict.fromkeys(keys, "127.0.0.1:0")
        self._config = path
        return configuration.load(path, overrides=self._overrides)

    async def _addresses(self, loaded: Loaded) -> planning.Addresses:
        before = self.state.read_run() or {}
        # A run file is left only by an 'up' that was killed; its services end by themselves, but not at once.
        deadline = time.monotonic() + _PREDECESSOR_SECONDS
        while planning.taken(before) and time.monotonic() < deadline:  # noqa: ASYNC110 - other processes end
            await asyncio.sleep(_POLL_SECONDS)
        return planning.addresses(loaded, self._reservations, provisioner=self._with_provisioner, before=before)

    async def _start_nats(self, loaded: Loaded) -> str:
        self._nats = NatsServer(
            self.state.nats,
            port=0 if self._free_ports else 4222,
            identity=_present(self._secrets).nats,
            legacy_no_auth=loaded.settings.nats.legacy_no_auth,
        )
        await self._nats.start()
        self._guards.append(asyncio.create_task(guarding.keep_nats(self._nats, self._say), name="guard of nats"))
        self._say("service.ready", f"NATS is ready at {self._nats.url}")
        return self._nats.url

    def _child(self, name: planning.Service, extra: Mapping[str, str]) -> Child:
        command = [sys.executable, "-m", "secbeat", name]
        if self._config is not None:
            command += ["--config", str(self._config)]
        environment = {**os.environ, **planning.variables(self._overrides), **extra}
        return Child(name, command, environment, lambda line: self._forward(name, line))

    def _forward(self, name: str, line: str) -> None:
        # What keeps a service from starting is our own error then, and said once.
        if self._on_line is not None and (self._started or not is_error_line(line)):
            self._on_line(name, line)

    async def _wait_ready(self) -> None:
        targets = {"orchestrator": self.urls.orchestrator, "provisioner": self.urls.provisioner}
        deadline = time.monotonic() + START_SECONDS
        began = time.monotonic()
        waiting = dict(self._children)
        while waiting:
            for name, child in list(waiting.items()):
                if child.pid is None:
                    raise died(child, await child.wait())
                if await self.api.ready(str(targets[name])):
                    del waiting[name]
                    spent = time.monotonic() - began
                    self._say("service.ready", f"{name.capitalize()} is ready at {targets[name]} ({spent:.1f} s)")
            if waiting and time.monotonic() > deadline:
                names = " and ".join(waiting)
                said = "; ".join(line for child in waiting.values() for line in child.last_words())
                raise SecbeatError(
                    "SERVICE_NOT_READY", why=f"{names} not ready after {START_SECONDS:.0f} s. {said}".strip()
                )
            await asyncio.sleep(_POLL_SECONDS)

    def _write_run_file(self) -> None:
        run = {
            "v": 1,
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "started_at": wire_time(datetime.now(UTC)),
            "url": self.urls.orchestrator,
            "provisioner_url": self.urls.provisioner,
            "metrics_url": self.urls.metrics,
            "nats_url": self.urls.nats,
            "nats_monitor_url": None if self._nats is None else self._nats.monitoring_url,
            "token_file": str(self.token_file()),
            "state_dir": str(self.state.path),
            "config": None if self._config is None else str(self._config.absolute()),
        }
        write_secret(self.state.run_file, json.dumps(run, indent=2) + "\n")

    def send(self, number: signal.Signals) -> None:
        """Signal the orchestrator and the provisioner (SIGHUP: read the configuration again)."""
        for child in self._children.values():
            child.send(number)

    # ------------------------------------------------------------------ stop

    async def retire(self, on_progress: retiring.Progress | None = None) -> list[str]:
        """Take the local pools to zero and wait until their nodes are gone; see `secbeat.up.retiring.retire`."""
        if not self._with_provisioner:
            return []
        return await retiring.retire(self.api, self.loaded.settings, on_progress, self._left_alone)

    def _left_alone(self, pool: str) -> None:
        self._say("pool.left_alone", f"Pool {pool} is in observe mode, in which nothing is taken down: its nodes stay")

    async def stop(self, *, retire: bool = True, quickly: bool = False) -> list[str]:
        """Stop in order: provisioner, orchestrator, NATS. Safe to call twice, and after a failed start.

        Args:
            retire: first take the local pools to zero, if the orchestrator runs.
            quickly: give the services little time.

        Returns:
            Local nodes that are left.
        """
        left: list[str] = []
        if retire and self._children:
            try:
                left = await self.retire()
            except UnreachableError as error:
                left = [f"unknown: {error.why}"]
        seconds = _QUICK_SECONDS if quickly else _STOP_SECONDS
        for guard in self._guards:
            guard.cancel()
        await asyncio.gather(*self._guards, return_exceptions=True)
        self._guards.clear()
        for name in ("provisioner", "orchestrator"):
            if (child := self._children.pop(name, None)) is not None:
                await child.stop(seconds)
        if self._nats is not None:
            await self._nats.stop()
            self._nats = None
        if self._api is not None:
            await self._api.close()
            self._api = None
        self._reservations.release()
        if self._urls is not None:
            self.state.run_file.unlink(missing_ok=True)
            self._urls = None
        self.state.unlock()
        return left

    def _say(self, kind: str, text: str) -> None:
        happening = Happening(datetime.now(UTC), kind, text)
        self.happenings.append(happening)
        if self._on_happening is not None:
            self._on_happening(happening)


def _present(value: T | None) -> T:
    if value is None:
        raise RuntimeError("the instance is not running")
    return value
