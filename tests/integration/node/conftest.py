from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from node.dataplane import DataPlane
from node.dataplane.builtin import BuiltinPlane
from node.dataplane.haproxy import HaproxyPlane
from secbeat import origin
from secbeat.api import listen
from secbeat.settings import NodeSettings

# Else pytest-asyncio makes a loop to put back after the first async test, and never closes it.
asyncio.set_event_loop(None)


def client_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.fixture
async def upstream():
    """Serve an application on a free port: the test origin, or one of the test's own."""
    listeners = []

    async def serve(app: web.Application | None = None) -> str:
        listener = await listen(app or origin.build(), "127.0.0.1:0", shutdown_timeout=0.2)
        listeners.append(listener)
        return listener.url

    yield serve
    for listener in listeners:
        await listener.close()


DRIVERS = {"builtin": BuiltinPlane, "haproxy": HaproxyPlane}
HAPROXY = pytest.param("haproxy", marks=pytest.mark.needs_haproxy)
# Where `make test` puts programs that the machine does not have.
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(params=["builtin", HAPROXY])
def driver(request) -> str:
    """Each test of a data plane runs with each driver, unless it says for which one it is."""
    return request.param


@pytest.fixture
def programs():
    """Where a program is."""

    def find(name: str) -> str:
        local = PROGRAMS / name
        return str(local) if local.exists() else name

    return find


@pytest.fixture
def haproxy_program(programs) -> str:
    return programs("haproxy")


@pytest.fixture
async def plane(tmp_path, driver, haproxy_program):
    """Start data planes in front of a backend."""
    planes = []

    async def start(backend: str, *, state_dir: Path | None = None, **settings) -> DataPlane:
        settings = {"listen_addr": "127.0.0.1:0", "backend": backend, "haproxy": haproxy_program, **settings}
        made = DRIVERS[driver](NodeSettings(**settings), state_dir or tmp_path / f"plane{len(planes)}")
        planes.append(made)
        await made.start()
        return made

    yield start
    for made in planes:
        await made.end()


@pytest.fixture
async def client():
    """An HTTP client that accepts the node's own certificate and changes nothing by itself."""
    connector = aiohttp.TCPConnector(ssl=client_tls(), limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        yield session


@pytest.fixture
def raw():
    """Open a TLS connection to a port and return its reader and writer: for what no client library would send."""
    writers = []

    async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls())
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        if not writer.is_closing():
            writer.transport.abort()


@pytest.fixture
def head_of():
    """Read the head of a response."""

    async def read(reader: asyncio.StreamReader) -> str:
        async with asyncio.timeout(10):
            return (await reader.readuntil(b"\r\n\r\n")).decode()

    return read


@pytest.fixture
def at():
    """The URL of a path at a data plane, byte for byte."""
    return lambda plane, path="/": URL(f"https://127.0.0.1:{plane.port}{path}", encoded=True)


@pytest.fixture
def unused_port():
    """A port on which nobody listens."""

    def find() -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return sock.getsockname()[1]

    return find


@pytest.fixture
def until():
    """Wait for a condition; a minute and a half is for machines that do other things as well."""

    async def wait(condition, seconds: float = 90.0):
        async with asyncio.timeout(seconds):
            while not (found := condition()):  # noqa: ASYNC110 - what is watched is another process or a socket
                await asyncio.sleep(0.005)
        return found

    return wait


class FakeOrchestrator:
    """Answers registrations and heartbeats as told, and remembers them.

    Attributes:
        secret: the join secret that is good for one registration.
        answers: statuses to give to the next registrations instead of 200.
        known: heartbeats of unknown nodes get 404.
    """

    def __init__(self) -> None:
        self.url = ""
        self.secret = "join-secret-canary-4711"
        self.token = "management-token-canary-4711"
        self.cluster_id = str(uuid.uuid4())
        self.registrations: list[dict] = []
        self.authorizations: list[str | None] = []
        self.heartbeats: list[dict] = []
        self.answers: list[int] = []
        self.known: set[str] = set()
        self.joined = ""
        self.interval = 0.1
        self.nats = lambda _public_key: {}
        self.snapshot: dict = {"v": 1, "version": 0, "complete": True, "blocked": []}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/v1/nodes/register", self._register)
        app.router.add_post("/api/v1/nodes/heartbeat", self._heartbeat)
        app.router.add_get("/api/v1/rules/snapshot", self._rules)
        return app

    def join_file(self, path, *, seconds: float = 600, **changes) -> dict:
        """Write a join file."""
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        content = {
            "v": 1, "server_url": self.url, "cluster_id": self.cluster_id, "node_id": str(uuid.uuid4()),
            "op_id": "01JZZZZZZZZZZZZZZZZZZZZZZZ", "pool": "web", "secret": self.secret,
            "expires_at": end.isoformat(), **changes,
        }  # fmt: skip
        path.write_text(json.dumps(content))
        path.chmod(0o600)
        return content

    async def _register(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.registrations.append(body)
        self.authorizations.append(request.headers.get("Authorization"))
        if self.answers and (status := self.answers.pop(0)) != 200:
            return web.Response(status=status, text="told to")
        join = body.get("join")
        if join is None:
            return self._registered(str(uuid.uuid4()), None)
        if join.get("secret") is not None:
            if join["secret"] != self.secret:
                return web.Response(status=403, text="this join secret was used already")
            self.secret = ""
        elif request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        self.joined = join["node_id"]
        credentials = {
            "cluster_id": self.cluster_id,
            "epoch": 7,
            "management_token": self.token,
            **self.nats(join.get("nats_public_key")),
        }
        return self._registered(join["node_id"], credentials)

    def _registered(self, node_id: str, credentials: dict | None) -> web.Response:
        self.known.add(node_id)
        return web.json_response(
            {
                "node_id": node_id,
                "heartbeat_interval": 1,
                "heartbeat_interval_seconds": self.interval,
                "endpoints": {"heartbeat_url": f"{self.url}/h", "control_url": f"{self.url}/c"},
                **({"credentials": credentials} if credentials else {}),
            }
        )

    async def _heartbeat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.heartbeats.append(body)
        return web.Response(status=200 if body["node_id"] in self.known else 404)

    async def _rules(self, _request: web.Request) -> web.Response:
        return web.json_response(self.snapshot)


@pytest.fixture
async def orchestrator(upstream):
    """A running fake orchestrator."""
    fake = FakeOrchestrator()
    fake.url = await upstream(fake.app())
    return fake


class NodeProcess:
    """A node in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, ports: dict[str, int], directory: Path, log: Path) -> None:
        self.process, self.directory, self._log = process, directory, log
        self.proxy, self.management, self.metrics = ports["proxy"], ports["management"], ports["metrics"]

    @property
    def output(self) -> str:
        """What it has written."""
        return self._log.read_text()

    def running(self) -> bool:
        return self.process.returncode is None

    async def ended(self, seconds: float = 90.0) -> int:
        """Its exit code, waited for."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()


@pytest.fixture
async def node_process(tmp_path, unused_port):
    """Start `python -m node` with a configuration; whatever still runs at the end is killed."""
    started: list[NodeProcess] = []

    async def start(
        *, node: str = "", management: str = "", nats: str = "", name: str = "node", addresses: dict | None = None
    ) -> NodeProcess:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        ports = {kind: unused_port() for kind in ("proxy", "management", "metrics")}
        used = {kind: f"127.0.0.1:{port}" for kind, port in ports.items()} | (addresses or {})
        config = directory / "node.toml"
        config.write_text(
            f"""
[node]
state_dir = "{directory}/state"
listen_addr = "{used["proxy"]}"
metrics_addr = "{used["metrics"]}"
register_jitter_seconds = 0
{"" if "propagation_seconds" in node else "propagation_seconds = 0.2"}
{node}
[management]
listen_addr = "{used["management"]}"
{management}
[nats]
connect_timeout_seconds = 2
{nats or 'url = "nats://127.0.0.1:1"'}
"""
        )
        log = directory / f"output{len(started)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "node", "--config", str(config), stdout=output, stderr=output
            )
        made = NodeProcess(process, ports, directory, log)
        started.append(made)
        return made

    yield start
    for one in started:
        if one.running():
            one.process.kill()
            await one.process.wait()
