"""A real nats-server, a real orchestrator and real nodes, each a process of its own; the test is their client."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest

from secbeat.auth import TokenBook
from secbeat.bus.server import NatsServer

# pytest-asyncio would else ask Python 3.11 for a loop that nobody closes.
asyncio.set_event_loop(None)
ROOT = Path(__file__).parents[3]


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
        await asyncio.sleep(0.02)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Node:
    """One node, and what its clients see."""

    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log

    async def answer(self, client, path="/"):
        """The status that a client with this address gets; 0 while nobody listens."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connector = aiohttp.TCPConnector(ssl=context, local_addr=(client, 0), force_close=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(f"https://127.0.0.1:{self.port}{path}") as response,
            ):
                return response.status
        except aiohttp.ClientError:
            return 0

    async def ready(self):
        return await self.answer("127.0.0.1", "/.secbeat/ready") == 200


class Fleet:
    """The services of one test."""

    def __init__(self, directory):
        self.directory, self.processes, self.nodes = directory, [], []
        self.nats = NatsServer(directory / "nats", port=free_port(), legacy_no_auth=True)
        self.port, self.url = free_port(), ""
        self.orchestrator = None

    async def setup(self):
        await self.nats.start()
        state = self.directory / "state"
        self.token = TokenBook.issue(state / "secrets" / "tokens.json", name="ann", scope="admin")
        identity = self.nats.identity
        (self.directory / "orchestrator.toml").write_text(
            f"""
[orchestrator]
listen_addr = "127.0.0.1:{self.port}"
metrics_addr = "127.0.0.1:0"
state_dir = "{state}"
log_file = "{self.directory}/orchestrator.log"
provisioning_webhook_url = "http://127.0.0.1:1/provision"
heartbeat_interval_seconds = 0.5
never_block = ["192.0.2.0/28"]
[pools.default]
min = 0
max = 5
[nats]
url = "{self.nats.url}"
creds_file = "{identity.creds_file("orchestrator")}"
issuer_seed_file = "{identity.issuer_seed_file}"
account_file = "{identity.account_file}"
"""
        )
        self.url = f"http://127.0.0.1:{self.port}"
        await self.start_orchestrator()

    async def _spawn(self, module, config, log):
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, "--config", str(config), cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=output, stderr=output,
            )  # fmt: skip
        self.processes.append(process)
        return process

    async def start_orchestrator(self):
        self.orchestrator = await self._spawn(
            "orchestrator", self.directory / "orchestrator.toml", self.directory / "orchestrator.out"
        )
        await eventually(self.leads, what="leadership")

    async def leads(self):
        assert self.orchestrator.returncode is None, (self.directory / "orchestrator.out").read_text()
        try:
            return (await self.call("GET", "/readyz"))[0] == 200
        except aiohttp.ClientError:
            return False

    async def kill_orchestrator(self):
        self.orchestrator.kill()
        await self.orchestrator.wait()

    async def start_node(self):
        """A node that joins with a secret."""
        status, join = await self.call("POST", "/api/v1/pools/default/nodes", {})
        assert status == 201, join
        place = self.directory / join["node_id"]
        place.mkdir()
        (place / "join.json").write_text(json.dumps(join))
        (place / "join.json").chmod(0o600)
        port = free_port()
        (place / "node.toml").write_text(
            f"""
[node]
state_dir = "{place}/state"
join_file = "{place}/join.json"
listen_addr = "127.0.0.1:{port}"
metrics_addr = "127.0.0.1:0"
register_jitter_seconds = 0
backend = "http://127.0.0.1:1"
[management]
enabled = false
"""
        )
        log = place / "output.log"
        node = Node(await self._spawn("node", place / "node.toml", log), port, log)
        self.nodes.append(node)
        return node

    async def call(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body, headers=headers) as response,
        ):
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def block(self, ip, ttl=600):
        body = {"ip": ip, "reason": "test", "ttl_seconds": ttl}
        status, answer = await self.call("POST", "/api/v1/rules/block_ip", body)
        assert (status, answer["success"]) == (200, True), answer

    async def everywhere(self, client, status, *, within=90.0):
        """Until every node answers this client so; the seconds that it took."""
        began = asyncio.get_running_loop().time()

        async def all_answer():
            return {status} == set(await asyncio.gather(*(node.answer(client) for node in self.nodes)))

        await eventually(all_answer, within=within, what=f"{status} for {client} at every node")
        return asyncio.get_running_loop().time() - began

    async def close(self):
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await self.nats.stop()


@pytest.fixture
async def fleet(tmp_path):
    made = Fleet(tmp_path)
    try:
        await made.setup()
        yield made
    finally:
        await made.close()
