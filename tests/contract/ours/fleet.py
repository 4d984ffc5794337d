"""Our orchestrator, core and HTTP API, in virtual time on a real port, with stores and machines in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from orchestrator.fleet import legacy_unit
from orchestrator.http import Audit, build
from orchestrator.operations.management import NodeClient
from orchestrator.operations.webhook import WebhookClient
from orchestrator.rules import Rules
from orchestrator.testing import World, world
from secbeat.api import listen
from secbeat.auth import Principal
from secbeat.settings import OrchestratorSettings
from secbeat.testing import settle
from tests.contract import raw
from tests.contract.original.programs import TOKEN
from tests.contract.raw import Message
from tests.contract.waiting import pass_time

IDENTITY = "550d7b95-4310-40ca-a9d4-4eb58650389f"
METRICS = {
    "cpu_usage": 67.23230977288095, "memory_usage": 3.5, "packets_per_second": 10, "active_connections": 1,
    "total_requests": 3, "ddos_blocks": 0, "waf_blocks": 0,
}  # fmt: skip


def registration(**changes: Any) -> dict[str, Any]:
    """The body of every registration of the original's node."""
    return json.loads(raw.request("node_session").body) | changes


def heartbeat(node_id: str, status: str = "Active", **metrics: Any) -> dict[str, Any]:
    """A heartbeat of the original's node."""
    return {"node_id": node_id, "metrics": {**METRICS, **metrics}, "status": status}


class OurFleet:
    """``ask`` speaks to it byte by byte; ``world`` is what stands behind it."""

    def __init__(self, made: World) -> None:
        self.world = made
        self.source = "127.0.0.1"  # where the test's requests come from
        self._port = 0
        self._clients: list[Any] = []

    @classmethod
    async def start(cls, **orchestrator: Any) -> OurFleet:
        """A leading orchestrator. ``pool``: keys of pool ``default``, whose min is 0 here; ``manner``: the receiver's;
        ``real_webhooks`` (options of the client), ``real_nodes``: what leaves it goes over the wire."""
        pool = {"min": 0, **orchestrator.pop("pool", {})}
        webhooks, nodes = orchestrator.pop("real_webhooks", None), orchestrator.pop("real_nodes", False)
        manner = orchestrator.pop("manner", "tracked")
        made = world(pool=pool, **orchestrator)
        made.receiver.manner = manner
        fleet = cls(made)
        if webhooks is not None:
            fleet._use_webhooks(webhooks)
        if nodes:
            fleet._use_nodes()
        await made.boot()
        await fleet._listen()
        return fleet

    @property
    def core(self) -> Any:
        return self.world.core

    @property
    def port(self) -> int:
        return self._port

    def _use_webhooks(self, options: dict[str, Any]) -> None:
        """Webhooks go over the wire."""
        client = WebhookClient(clock=self.world.clock, **{"timeout_seconds": lambda: 5.0, **options})
        self._clients.append(client)
        self.world.receiver.send = client.send

    def _use_nodes(self) -> None:
        """Nodes are called over the wire."""
        networks = OrchestratorSettings().node_networks
        client = NodeClient(networks=lambda: networks, messaging=self.world.messaging.linked())
        self._clients.append(client)
        for name in ("terminate", "resume", "answers", "listens"):
            setattr(self.world.nodes, name, getattr(client, name))

    async def _listen(self) -> None:
        made, core = self.world, self.core
        if self._clients:
            core.context.token = lambda node: TOKEN if node.legacy else None
        self.rules_bucket = made.stored.fenced(made.lease)
        self.rules = Rules(
            bucket=self.rules_bucket,
            lease=made.lease,
            messaging=made.messaging,
            clock=made.clock,
            followers=core.registry.nodes,
            events=core.context.events,
        )
        app = build(
            control=core,
            registry=core.registry,
            rules=self.rules,
            events=core.context.events,
            audit=Audit(clock=made.clock, ledger=made.ledger),
            clock=made.clock,
            tokens=lambda token: Principal("operator", "admin") if token == "operator-token" else None,
            legacy_nodes=core.settings.orchestrator.legacy_nodes,
            legacy_unit=lambda pool: legacy_unit(core.the_pools.policy(pool).legacy_cpu_unit),
        )
        self._listener = await listen(app, f"127.0.0.1:{self._port}", shutdown_timeout=0.1)
        self._port = self._listener.port

    async def restart(self) -> None:
        """Killed and started anew, on the same records and the same port."""
        await self._listener.close()
        await self.world.restart()
        await self._listen()

    async def close(self) -> None:
        await self._listener.close()
        for client in self._clients:
            await client.close()
        await self.world.close()

    # -------------------------------------------------------------- what a test does

    async def ask(self, sent: bytes | Message) -> Message:
        """One request on a connection of its own."""
        answer = await raw.ask(self._port, sent, source=self.source)
        await settle()
        return answer

    async def get(self, path: str, *, token: str | None = None) -> Message:
        return await self.ask(raw.original("GET", path, token=token))

    async def post(self, path: str, body: Any = None, *, token: str | None = None) -> Message:
        return await self.ask(raw.original("POST", path, body, token=token))

    async def register(self, **changes: Any) -> str:
        """A node of the original registers; its id."""
        answer = await self.post("/api/v1/nodes/register", registration(**changes))
        assert answer.status == 200, answer
        return answer.json()["node_id"]

    async def beat(self, node_id: str, status: str = "Active", **metrics: Any) -> int:
        """One heartbeat; the status of its answer."""
        return (await self.post("/api/v1/nodes/heartbeat", heartbeat(node_id, status, **metrics))).status

    async def beat_for(self, node_id: str, seconds: float, *, every: float, status: str = "Active") -> None:
        """Heartbeats at an interval, for so long."""
        passed = 0.0
        while passed < seconds:
            assert await self.beat(node_id, status) == 200
            await self.world.clock.advance(every)
            passed += every

    async def node(self, node_id: str) -> dict[str, Any]:
        return (await self.get(f"/api/v1/nodes/{node_id}")).json()

    def state(self, node_id: str) -> str | None:
        found = self.core.registry.get(node_id)
        return None if found is None else found.state

    async def until(self, condition: Callable[[], Any], *, seconds: float = 300.0, step: float = 1.0) -> None:
        """Let virtual time pass until ``condition``, but not while a webhook or a call on a node is under way."""
        await pass_time(
            self.world.clock,
            condition,
            sessions=lambda: [client._session for client in self._clients],
            seconds=seconds,
            step=step,
        )
