"""A provisioner in a process of its own, with a real nats-server, and an orchestrator that only gives join secrets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web

from secbeat import auth, bus, ids, signing
from secbeat.bus.server import NatsServer
from secbeat.settings import NatsSettings
from secbeat.wire.jobs import FINISHED, JobRecord

PROJECT = Path(__file__).parent / "project"
SITE_TOKEN = "site+token/with=odd chars"


@dataclass
class Joins:
    """Gives join secrets as the orchestrator does; ``status`` makes it refuse."""

    url: str = ""
    status: int = 200
    asked: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    nodes: dict[str, str] = field(default_factory=dict)
    cluster_id: str = field(default_factory=ids.new_cluster_id)

    async def answer(self, request: web.Request) -> web.Response:
        op_id = request.match_info["op_id"]
        self.asked.append(op_id)
        if request.headers.get("Authorization") != "Bearer the-service-token":
            return web.json_response({}, status=401)
        if self.status != 200:
            return web.json_response({}, status=self.status)
        secret = auth.new_token()
        self.secrets.append(secret)
        expires = (datetime.now(UTC) + timedelta(minutes=15)).isoformat()
        body = {"cluster_id": self.cluster_id, "node_id": self.nodes[op_id], "op_id": op_id, "pool": "default"}
        return web.json_response(body | {"secret": secret, "expires_at": expires})


@dataclass
class Service:
    """A provisioner process and what a test does with it."""

    state: Path
    joins: Joins
    nats_url: str
    environment: dict[str, str]
    session: aiohttp.ClientSession
    secret: str
    url: str = ""
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        log = (self.state / "service.log").open("ab")
        with log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "provisioner", "--config", str(self.state / "secbeat.toml"),
                stdout=log, stderr=log, env=self.environment, cwd=self.state,
            )  # fmt: skip
        await self.until(self._listening, "the service listens", seconds=30)

    async def _listening(self) -> bool:
        assert self.process is not None
        if self.process.returncode is not None:
            raise AssertionError((self.state / "service.log").read_text())
        for line in reversed((self.state / "service.log").read_text().splitlines()):
            if "Listening at" in line:
                self.url = line.split("Listening at ")[1].split()[0]
                break
        with suppress(aiohttp.ClientError):
            async with self.session.get(f"{self.url}/readyz") as answer:
                pid = psutil.Process(self.process.pid)
                ports = {one.laddr.port for one in pid.net_connections("tcp") if one.status == "LISTEN"}
                return answer.status == 200 and int(self.url.rpartition(":")[2]) in ports
        return False

    async def until(self, check: Any, what: str, *, seconds: float = 20.0) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(aiohttp.InvalidURL):
                if found := await check():
                    return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {what}")

    async def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()

    def operation(self, *, action: str = "create", node_id: str | None = None, **changes: Any) -> dict[str, Any]:
        now = datetime.now(UTC)
        operation = {
            "v": 1,
            "cluster_id": self.joins.cluster_id,
            "op_id": ids.new_op_id(),
            "action": action,
            "pool": "default",
            "node_id": node_id or ids.new_node_id(),
            "epoch": 1,
            "issued_at": now.isoformat(),
            "deadline": (now + timedelta(seconds=120)).isoformat(),
        } | changes
        self.joins.nodes[operation["op_id"]] = operation["node_id"]
        return operation

    async def send(self, operation: dict[str, Any], *, reason: str = "OK", path: str | None = None) -> Any:
        moment = datetime.now(UTC).isoformat()
        body = json.dumps({"reason": reason, "timestamp": moment, "operation": operation}).encode()
        door = path or {"create": "/provision", "destroy": "/deprovision"}[operation["action"]]
        headers = signing.headers(self.secret, msg_id=operation["op_id"], timestamp=int(time.time()), body=body)
        headers["Content-Type"] = "application/json"
        async with self.session.post(self.url + door, data=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers

    async def job(self, op_id: str) -> JobRecord:
        async with self.session.get(f"{self.url}/jobs/{op_id}") as answer:
            assert answer.status == 200, await answer.text()
            return JobRecord.model_validate(await answer.json())

    async def ended(self, op_id: str, *, seconds: float = 40.0) -> JobRecord:
        async def check() -> JobRecord | None:
            job = await self.job(op_id)
            return job if job.state in FINISHED else None

        return await self.until(check, f"job {op_id} ends", seconds=seconds)

    async def reaches(self, op_id: str, stage: str, *, seconds: float = 30.0) -> JobRecord:
        async def check() -> JobRecord | None:
            job = await self.job(op_id)
            assert job.state not in FINISHED, job
            return job if job.progress.stage == stage else None

        return await self.until(check, f"job {op_id} reaches {stage!r}", seconds=seconds)

    async def read_log(self, op_id: str, query: str = "") -> bytes:
        async with self.session.get(f"{self.url}/jobs/{op_id}/log{query}") as answer:
            assert answer.status == 200
            return await answer.read()


@pytest.fixture
async def nats(tmp_path):
    server = NatsServer(tmp_path / "nats", port=0, open_access=True)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def joins():
    found = Joins()
    app = web.Application()
    app.router.add_post("/api/v1/operations/{op_id}/join", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def make_service(tmp_path, nats, joins):
    """Makes a service that is not started yet; keyword arguments are further SECBEAT_… variables."""
    made = []
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))

    def make(**variables: str) -> Service:
        state = tmp_path / "state"
        project = tmp_path / "project"
        if not project.exists():
            shutil.copytree(PROJECT, project)
        secret = signing.new_secret()
        auth.write_secret(state / "secrets" / "webhook.secret", secret)
        auth.write_secret(state / "secrets" / "service.token", "the-service-token")
        config = state / "secbeat.toml"
        config.write_text(f'[blueprints.default]\n[blueprints.default.variables]\nsite_token = "{SITE_TOKEN}"\n')
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(state),
            "CANARY_OF_THE_SERVICE": "canary-in-the-environment",
            "SECBEAT_PROVISIONER__LISTEN_ADDR": "127.0.0.1:0",
            "SECBEAT_PROVISIONER__STATE_DIR": str(state),
            "SECBEAT_PROVISIONER__PROJECT_DIR": str(project),
            "SECBEAT_PROVISIONER__ORCHESTRATOR_URL": joins.url,
            "SECBEAT_NATS__URL": nats.url,
            **variables,
        }
        service = Service(state, joins, nats.url, environment, session, secret)
        made.append(service)
        return service

    yield make
    for service in made:
        await service.stop()
    await session.close()


@pytest.fixture
async def service(make_service):
    started = make_service()
    await started.start()
    return started


@pytest.fixture
async def jobs_bucket(nats):
    client = await bus.connect(NatsSettings(url=nats.url), name="test")
    yield await client.bucket("jobs")
    await client.close()
