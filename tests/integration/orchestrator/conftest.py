"""A real orchestrator process on a real nats-server; receiver, machines and nodes live in the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from secbeat import bus, ids, signing, subjects
from secbeat.auth import TokenBook, read_secret, write_secret
from secbeat.bus import NodeCredentials
from secbeat.bus.identity import new_user_keys
from secbeat.bus.server import NatsServer
from secbeat.clock import SystemClock, wire_time
from secbeat.settings import NatsSettings
from secbeat.wire.heartbeat import HeartbeatFrame, MetricsFrame, encode_frame
from secbeat.wire.jobs import JobRecord, Machine
from secbeat.wire.webhook import WebhookBody

# pytest-asyncio would else ask Python 3.11 for a loop that nobody closes.
asyncio.set_event_loop(None)


async def eventually(condition, *, within=90.0, what="it"):
    """Poll until ``condition`` (plain or async) gives something true; that is returned."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come within {within} s"
        await asyncio.sleep(0.05)


async def serve(app, host="127.0.0.1", port=0):
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    return runner, site._server.sockets[0].getsockname()[1]


class Node:
    """One node: joins with its secret, beats on NATS with its own user, drains when told."""

    def __init__(self, cluster, pool):
        self.cluster, self.pool = cluster, pool
        self.boot_id, self.seq, self.status, self.cpu = ids.new_boot_id(), 0, "Active", 0.5
        self.told = []
        self.tasks = AsyncExitStack()
        self.ended = asyncio.Event()

    async def start(self, op_id, node_id, secret):
        self.node_id = node_id
        app = web.Application()
        app.router.add_post("/control/terminate", self.terminate)
        app.router.add_get("/health", self.health)
        self.runner, self.port = await serve(app)
        try:
            await self.join(op_id, node_id, secret)
        except BaseException:
            await self.runner.cleanup()
            raise

    async def join(self, op_id, node_id, secret):
        seed, public = new_user_keys()
        body = {
            "public_ip": "127.0.0.1",
            "config": {"node_type": "mitigation-node", "region": None, "tags": []},
            "join": {
                "node_id": node_id,
                "boot_id": self.boot_id,
                "pool": self.pool,
                "op_id": op_id,
                "secret": secret,
                "nats_public_key": public,
                "listening": {"management_port": self.port},
            },
        }
        status, answer = await self.cluster.call("POST", "/api/v1/nodes/register", body, token=None)
        assert status == 200, answer
        self.token = answer["credentials"]["management_token"]
        credentials = NodeCredentials(answer["credentials"]["nats_jwt"], seed)
        settings = NatsSettings(url=answer["credentials"]["nats_url"])
        self.bus = await bus.connect(settings, name="node", jetstream=False, credentials=credentials)
        self.beating = asyncio.create_task(self.beat_on())

    async def beat(self):
        self.seq += 1
        frame = HeartbeatFrame(
            node_id=self.node_id,
            boot_id=self.boot_id,
            seq=self.seq,
            sent_at=wire_time(SystemClock().now()),
            status=self.status,
            pool=self.pool,
            metrics=MetricsFrame(cpu=self.cpu, memory=0.2, connections=3),
        )
        await self.bus.messaging.publish(subjects.heartbeat(self.node_id), encode_frame(frame))

    async def beat_on(self):
        while True:
            await self.beat()
            await asyncio.sleep(0.2)

    async def health(self, _request):
        return web.json_response({"status": "healthy"})

    async def terminate(self, request):
        assert request.headers["Authorization"] == f"Bearer {self.token}"
        body = await request.json()
        assert (body["node_id"], body["boot_id"]) == (self.node_id, self.boot_id)
        self.told.append(body)
        if self.status == "Active":
            self.status = "Draining"
            self.cluster.spawn(self.leave())
        grace = body["grace_period_seconds"]
        message = f"Graceful shutdown initiated with {grace} second grace period"
        return web.json_response({"success": True, "message": message, "grace_period_seconds": grace}, status=202)

    async def leave(self):
        await self.cluster.may_leave.wait()
        self.beating.cancel()
        self.status = "Terminating"
        await self.beat()
        await self.close()

    async def close(self):
        self.beating.cancel()
        await self.runner.cleanup()
        await self.bus.close()
        self.ended.set()


class Cluster:
    """Everything around the orchestrator."""

    def __init__(self, directory: Path, nats: NatsServer):
        self.directory, self.nats = directory, nats
        self.state = directory / "state"
        self.config = directory / "secbeat.toml"
        self.nodes, self.webhooks, self.machines, self.background = {}, [], {}, set()
        self.may_boot, self.may_leave = asyncio.Event(), asyncio.Event()
        self.may_boot.set()
        self.may_leave.set()
        self.process = None
        self.url = None
        self.stderr = (directory / "stderr.log").open("ab")

    async def setup(self, **pool):
        self.secret = signing.new_secret()
        write_secret(self.state / "secrets" / "webhook.secret", self.secret)
        self.tokens = {
            scope: TokenBook.issue(self.state / "secrets" / "tokens.json", name=scope, scope=scope)
            for scope in ("admin", "service")
        }
        app = web.Application()
        app.router.add_post("/provision", self.webhook)
        app.router.add_post("/deprovision", self.webhook)
        self.receiver, port = await serve(app)
        identity = self.nats.identity
        self.bus = await bus.connect(
            NatsSettings(url=self.nats.url, creds_file=identity.creds_file("provisioner")), name="provisioner"
        )
        self.jobs = await self.bus.bucket(subjects.JOBS_BUCKET)
        keys = {"min": 1, "max": 3, "scaling_check_interval_seconds": 0.5, "warmup_seconds": 0, **pool}
        self.config.write_text(
            "\n".join(
                [
                    "[orchestrator]",
                    'listen_addr = "127.0.0.1:0"',
                    'metrics_addr = "127.0.0.1:0"',
                    f'state_dir = "{self.state}"',
                    f'log_file = "{self.directory}/logs/orchestrator.log"',
                    f'provisioning_webhook_url = "http://127.0.0.1:{port}/provision"',
                    f'deprovisioning_webhook_url = "http://127.0.0.1:{port}/deprovision"',
                    "heartbeat_interval_seconds = 0.5",
                    "[pools.default]",
                    *(f"{key} = {json.dumps(value)}" for key, value in keys.items()),
                    "[nats]",
                    f'url = "{self.nats.url}"',
                    f'creds_file = "{identity.creds_file("orchestrator")}"',
                    f'issuer_seed_file = "{identity.issuer_seed_file}"',
                    f'account_file = "{identity.account_file}"',
                ]
            )
        )

    # -------------------------------------------------------------- the process

    @property
    def environment(self):
        return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}

    @property
    def log(self) -> Path:
        return self.directory / "logs" / "orchestrator.log"

    async def start(self):
        """Start the orchestrator; its address is read from its log."""
        seen = len(self.log.read_text()) if self.log.exists() else 0
        self.process = await self.spawn_process(self.config)

        def address():
            assert self.process.returncode is None, (self.directory / "stderr.log").read_text()
            text = self.log.read_text()[seen:] if self.log.exists() else ""
            return text.partition("Listening at ")[2].partition(",")[0]

        self.url = await eventually(address, what="the orchestrator's address")
        await eventually(self.leads, what="leadership")

    async def spawn_process(self, config):
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "orchestrator",
            "--config",
            str(config),
            cwd=self.directory,
            env=self.environment,
            stderr=self.stderr,
        )

    async def failing_start(self):
        """A start that is expected to fail: exit code and what was said."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "orchestrator",
            "--config",
            str(self.config),
            cwd=self.directory,
            env=self.environment,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(90):
            _, error = await process.communicate()
        return process.returncode, error.decode()

    async def leads(self):
        status, _ = await self.call("GET", "/readyz", None)
        return status == 200

    async def kill(self):
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self):
        self.process.terminate()
        async with asyncio.timeout(90):
            return await self.process.wait()

    async def close(self):
        if self.process is not None and self.process.returncode is None:
            await self.kill()
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        for node in self.nodes.values():
            if not node.ended.is_set():
                await node.close()
        await self.bus.close()
        await self.receiver.cleanup()
        self.stderr.close()

    def spawn(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    until = staticmethod(eventually)

    async def call(self, method, path, body=None, *, token="admin", url=None):
        headers = {} if token is None else {"Authorization": f"Bearer {self.tokens[token]}"}
        # Its first webhook may come before its address has been read.
        base = url or await eventually(lambda: self.url, what="the orchestrator's address")
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, base + path, json=body, headers=headers) as response,
        ):
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def operations(self, action=None):
        _, answer = await self.call("GET", "/api/v1/operations")
        return [op for op in reversed(answer["items"]) if action in {None, op["action"]}]

    async def active(self):
        _, answer = await self.call("GET", "/api/v1/nodes")
        return [node["node_id"] for node in answer if node["status"] == "Active"]

    async def all_ended(self, count):
        """Whether so many create operations succeeded and nothing is open."""
        found = await self.operations()
        created = [op for op in found if op["action"] == "create" and op["state"] == "succeeded"]
        return len(created) >= count and all(op["ended_at"] for op in found)

    async def state_of(self, op_id, state):
        _, op = await self.call("GET", f"/api/v1/operations/{op_id}")
        return op["state"] == state

    async def nothing_open(self):
        return all(op["ended_at"] for op in await self.operations())

    async def not_ready(self):
        return not await self.leads()

    async def stored(self, prefix):
        settings = NatsSettings(url=self.nats.url, creds_file=self.nats.identity.creds_file("admin"))
        admin = await bus.connect(settings, name="admin")
        try:
            return await (await admin.bucket(subjects.STATE_BUCKET)).entries(prefix)
        finally:
            await admin.close()

    async def metrics(self):
        address = self.log.read_text().rpartition("metrics at ")[2].partition(";")[0]
        async with aiohttp.ClientSession() as session, session.get(address + "/metrics") as response:
            return await response.text()

    def secret_texts(self):
        """What must stand in no log: tokens, secrets, keys."""
        return [
            self.secret,
            *self.tokens.values(),
            read_secret(self.state / "secrets" / "master.key"),
            *(node.token for node in self.nodes.values()),
        ]

    # -------------------------------------------------------------- the receiver

    async def webhook(self, request):
        raw = await request.read()
        now = SystemClock().now()
        msg_id = signing.verify([self.secret], request.headers, raw, now=now.timestamp(), tolerance=60)
        body = WebhookBody.model_validate_json(raw)
        op = body.operation
        assert msg_id == op.op_id
        self.webhooks.append((request.path, op.op_id))
        known = await self.jobs.get(f"job.{op.op_id}") is not None
        if not known:
            record = JobRecord(
                **{name: getattr(op, name) for name in ("op_id", "cluster_id", "action", "pool", "node_id", "epoch")},
                created_at=now,
                deadline=op.deadline,
                started_at=now,
                state="running",
            )
            await self.put(record)
            self.spawn(self.carry_out(record))
        answer = {"status": "known" if known else "accepted", "op_id": op.op_id, "node_id": op.node_id}
        return web.json_response(answer, status=200 if known else 202)

    async def put(self, record):
        await self.jobs.put(f"job.{record.op_id}", record.encode())
        await self.bus.messaging.publish(subjects.job_hint(record.op_id), b"{}")

    async def carry_out(self, record):
        if record.action == "destroy":
            await self.nodes[record.node_id].ended.wait()
            self.machines.pop(record.node_id)
            await self.put(record.model_copy(update={"state": "succeeded"}))
            return
        await self.may_boot.wait()
        self.machines.setdefault(record.node_id, []).append(record.op_id)
        node = Node(self, record.pool)

        async def secret():
            try:
                status, answer = await self.call("POST", f"/api/v1/operations/{record.op_id}/join", {}, token="service")
            except aiohttp.ClientError:
                return None
            return answer if status == 200 else None

        found = await eventually(secret, what="a join secret")
        await node.start(record.op_id, record.node_id, found["secret"])
        self.nodes[record.node_id] = node
        name = ids.machine_name(record.pool, record.node_id)
        machine = Machine(id=name, name=name, address="127.0.0.1", management_port=node.port)
        await self.put(record.model_copy(update={"state": "succeeded", "machine": machine}))


@pytest.fixture
async def cluster(tmp_path):
    nats = NatsServer(tmp_path / "nats", port=0)
    await nats.start()
    made = Cluster(tmp_path, nats)
    try:
        await made.setup()
        yield made
    finally:
        await made.close()
        await nats.stop()
