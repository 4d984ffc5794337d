"""A whole core in memory behind the real API on a socket, and the real command in front of it."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from orchestrator.http import Audit, build
from orchestrator.rules import Rules
from orchestrator.testing import World, world
from secbeat.api import listen
from secbeat.auth import Principal
from secbeat.cli import main

SCOPES = ("read", "operate", "admin", "service")
TOKENS = {f"{scope}-token": Principal(f"the-{scope}", scope) for scope in SCOPES}


@pytest.fixture(scope="session", autouse=True)
def _loop_of_the_main_thread():
    """One loop for pytest-asyncio to put back after each test: asked on 3.11 it makes one, and never closes it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def first(self) -> str:
        return self.out.splitlines()[0]

    def line(self, name: str) -> str:
        """What stands behind ``name:`` in the answer."""
        return next(line.split(":", 1)[1].strip() for line in self.out.splitlines() if line.startswith(f"  {name}:"))


@dataclass
class Service:
    """The world, its API and a terminal. ``secbeat`` runs the command with an admin's token."""

    world: World
    audit: Audit
    url: str
    tokens: Any
    capsys: Any

    async def secbeat(self, *words: str, scope: str = "admin") -> Ran:
        options = ["--url", self.url, "--token-file", str(self.tokens / scope)]
        # The command is synchronous and its service lives in this loop.
        code = await asyncio.to_thread(main, [*words, *(options if words[0] not in {"explain", "config"} else [])])
        captured = self.capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    async def why(self, thing: str = "default", *more: str) -> Ran:
        ran = await self.secbeat("why", thing, *more)
        assert ran.code == 0, ran.err
        return ran


@pytest_asyncio.fixture
async def serve(tmp_path, capsys, monkeypatch):
    """``await serve(pool={...})``: a service with that pool; ``prepare`` sees the world before it starts."""
    for name in [name for name in os.environ if name.startswith("SECBEAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SECBEAT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("SECBEAT_PROVISIONER_URL", "http://127.0.0.1:1")
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    for scope in SCOPES:
        (tokens / scope).write_text(f"{scope}-token")
        (tokens / scope).chmod(0o600)

    async with AsyncExitStack() as stack:

        async def start(prepare=lambda _world: None, **settings: Any) -> Service:
            made = world(**settings)
            prepare(made)
            await stack.enter_async_context(made)
            core = made.core
            core.file = tmp_path / "secbeat.toml"
            audit = Audit(clock=made.clock, ledger=made.ledger)
            core.loop.audit = audit.add
            events = core.context.events
            rules = Rules(
                bucket=made.stored.fenced(made.lease),
                lease=made.lease,
                messaging=made.messaging,
                clock=made.clock,
                followers=core.registry.nodes,
                events=events,
            )
            app = build(
                control=core,
                registry=core.registry,
                rules=rules,
                events=events,
                audit=audit,
                clock=made.clock,
                tokens=TOKENS.get,
            )
            listener = await listen(app, "127.0.0.1:0", shutdown_timeout=0.2)
            stack.push_async_callback(listener.close)
            return Service(made, audit, listener.url, tokens, capsys)

        yield start
