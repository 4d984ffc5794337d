"""A Control that remembers what it was asked, and the API in front of it on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from orchestrator.control import Missing
from orchestrator.events import EventHub
from orchestrator.fleet import Registry
from orchestrator.http import Audit, build
from orchestrator.rules import Rules
from secbeat import ids
from secbeat.api import listen, openapi
from secbeat.auth import Principal
from secbeat.testing import FakeClock, MemoryBucket, MemoryLease, MemoryLedger, MemoryMessaging
from secbeat.wire.decisions import DecisionRecord, PoolSnapshot
from secbeat.wire.jobs import JobRecord
from secbeat.wire.nodes import NodeRecord, NodeWhy
from secbeat.wire.operations import OperationRecord
from secbeat.wire.pools import PoolView, PoolWhy
from secbeat.wire.registration import Endpoints, JoinFile, JoinSecret, RegisterResponse

RECORDED = Path(__file__).parent / "recorded"
START = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
CLUSTER = "11111111-1111-4111-8111-111111111111"
TOKENS = {scope: Principal(f"the-{scope}", scope) for scope in ("read", "operate", "admin", "service")}


@pytest.fixture(scope="session", autouse=True)
def _loop_of_the_main_thread():
    """One loop for pytest-asyncio to put back after each test: asked on 3.11 it makes one, and never closes it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


class FakeControl:
    """A Control without anything behind it.

    Attributes:
        calls: (method, arguments) of everything that changes something.
        next_error: raised by the next such call, once.
    """

    def __init__(self, registry: Registry) -> None:
        self.leader, self.epoch = True, 7
        self.registry = registry
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.next_error: Exception | None = None
        self.views = {"default": pool_view("default")}
        self.records: dict[str, OperationRecord] = {}
        self.job_records: dict[str, JobRecord] = {}
        self.known_decisions: list[DecisionRecord] = []
        self.adopts: set[str] = set()

    def _called(self, method: str, **arguments: Any) -> None:
        self.calls.append((method, arguments))
        error, self.next_error = self.next_error, None
        if error is not None:
            raise error

    def pools(self) -> Sequence[PoolView]:
        return list(self.views.values())

    def pool(self, name: str) -> PoolView:
        if name not in self.views:
            raise Missing("NOT_FOUND", why=f"there is no pool {name}")
        return self.views[name]

    def why_pool(self, name: str) -> PoolWhy:
        return PoolWhy(name=self.pool(name).name, sentence="It is as it should be.", decision=None)

    def decisions(self, pool: str | None = None, *, newest: int = 100) -> Sequence[DecisionRecord]:
        return [one for one in self.known_decisions if pool in (None, one.pool)][-newest:]

    async def decision_at(self, pool: str, at: datetime) -> DecisionRecord | None:
        found = [one for one in self.decisions(pool) if one.at <= at]
        return found[-1] if found else None

    async def _change(self, method: str, name: str, by: str, request: Any = None) -> PoolView:
        self._called(method, name=name, by=by, request=request)
        view = self.pool(name)
        self.views[name] = view.model_copy(update={"revision": view.revision + 1})
        return self.views[name]

    async def scale(self, name: str, request: Any, *, by: str) -> PoolView:
        return await self._change("scale", name, by, request)

    async def pause(self, name: str, request: Any, *, by: str) -> PoolView:
        return await self._change("pause", name, by, request)

    async def resume(self, name: str, request: Any, *, by: str) -> PoolView:
        return await self._change("resume", name, by, request)

    async def retire(self, name: str, *, by: str) -> PoolView:
        return await self._change("retire", name, by)

    async def register(self, request: Any, *, peer: str, host: str, token: str | None) -> RegisterResponse:
        self._called("register", request=request, peer=peer, host=host, token=token)
        node_id = ids.new_node_id()
        self.registry.put(node_record(node_id))
        return RegisterResponse(
            node_id=node_id,
            heartbeat_interval=10,
            endpoints=Endpoints(
                heartbeat_url=f"http://{host}/api/v1/nodes/heartbeat",
                control_url=f"http://{host}/api/v1/nodes/{node_id}/commands",
            ),
        )

    async def adopt(self, node_id: str, *, peer: str) -> bool:
        self._called("adopt", node_id=node_id, peer=peer)
        if node_id in self.adopts:
            self.registry.put(node_record(node_id))
        return node_id in self.adopts

    async def join_secret(self, op_id: str) -> JoinSecret:
        self._called("join_secret", op_id=op_id)
        record = self.operation(op_id)
        return JoinSecret(
            cluster_id=CLUSTER,
            node_id=record.node_id,
            op_id=op_id,
            pool=record.pool,
            secret="the-join-secret",
            expires_at=START,
        )

    async def new_node(self, pool: str, *, server_url: str, by: str) -> JoinFile:
        self._called("new_node", pool=pool, server_url=server_url, by=by)
        return JoinFile(
            server_url=server_url,
            cluster_id=CLUSTER,
            node_id=ids.new_node_id(),
            op_id=ids.new_op_id(),
            pool=pool,
            secret="the-join-secret",
            expires_at=START,
        )

    def why_node(self, node_id: str) -> NodeWhy:
        node = self.registry.get(node_id)
        if node is None:
            raise Missing("NOT_FOUND", why=f"there is no node {node_id}")
        return NodeWhy(node_id=node_id, pool=node.pool, state=node.state, sentence="It serves.")

    async def drain(self, node_id: str, *, reason: str, by: str) -> OperationRecord:
        self._called("drain", node_id=node_id, reason=reason, by=by)
        if self.registry.get(node_id) is None:
            raise Missing("NOT_FOUND", why=f"there is no node {node_id}")
        record = operation(node_id=node_id, action="destroy")
        self.records[record.op_id] = record
        return record

    async def undrain(self, node_id: str, *, by: str) -> OperationRecord:
        self._called("undrain", node_id=node_id, by=by)
        return operation(node_id=node_id, action="destroy", state="cancelled")

    async def protect(self, node_id: str, *, on: bool, by: str) -> None:
        self._called("protect", node_id=node_id, on=on, by=by)
        node = self.registry.get(node_id)
        assert node is not None
        self.registry.put(node.record.model_copy(update={"protected": on}))

    def operations(self, pool: str | None = None, *, open_only: bool = False) -> Sequence[OperationRecord]:
        return [one for one in self.records.values() if pool in (None, one.pool) and not (open_only and one.ended)]

    def operation(self, op_id: str) -> OperationRecord:
        if op_id not in self.records:
            raise Missing("NOT_FOUND", why=f"there is no operation {op_id[:40]}")
        return self.records[op_id]

    async def job_report(self, op_id: str, record: JobRecord) -> None:
        self._called("job_report", op_id=op_id, record=record)

    async def jobs(self) -> Sequence[JobRecord]:
        return list(self.job_records.values())

    async def job(self, op_id: str) -> JobRecord:
        if op_id not in self.job_records:
            raise Missing("NOT_FOUND", why=f"there is no job {op_id[:40]}")
        return self.job_records[op_id]

    async def cancel_job(self, op_id: str, *, by: str) -> JobRecord:
        self._called("cancel_job", op_id=op_id, by=by)
        return (await self.job(op_id)).model_copy(update={"cancel_requested_at": START})


def pool_view(name: str, **fields: Any) -> PoolView:
    given = {
        "revision": 12, "mode": "active", "min": 1, "max": 10, "capacity": 2, "active": 2, "pending": 0,
        "draining": 0, "failed": 0, "desired": 2, "cpu": 0.5, "blueprint": "default",
        "policy": {"scale_up_cpu_threshold": 0.8},
    }  # fmt: skip
    return PoolView(name=name, **{**given, **fields})


def node_record(node_id: str, **fields: Any) -> NodeRecord:
    given: dict[str, Any] = {
        "pool": "default", "state": "active", "state_since": START, "created_at": START, "registered_at": START,
        "legacy": True, "peer_address": "127.0.0.1",
    }  # fmt: skip
    return NodeRecord(node_id=node_id, **{**given, **fields})


def operation(**fields: Any) -> OperationRecord:
    given: dict[str, Any] = {
        "op_id": ids.new_op_id(), "cluster_id": CLUSTER, "action": "create", "pool": "default",
        "node_id": ids.new_node_id(), "reason": "MANUAL", "created_at": START, "updated_at": START,
        "deadline": START + timedelta(minutes=15),
    }  # fmt: skip
    return OperationRecord(**{**given, **fields})


def job(**fields: Any) -> JobRecord:
    given: dict[str, Any] = {
        "op_id": ids.new_op_id(), "cluster_id": CLUSTER, "action": "create", "pool": "default",
        "node_id": ids.new_node_id(), "created_at": START, "deadline": START + timedelta(minutes=15),
    }  # fmt: skip
    return JobRecord(**{**given, **fields})


def decision(sentence: str, at: datetime, **fields: Any) -> DecisionRecord:
    given: dict[str, Any] = {
        "pool": "default", "direction": "hold", "code": "WITHIN_THRESHOLDS",
        "snapshot": PoolSnapshot(pool=fields.get("pool", "default"), active=2),
    }  # fmt: skip
    return DecisionRecord(sentence=sentence, at=at, **{**given, **fields})


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Api:
    """The API, running, with everything that stands behind it."""

    control: FakeControl
    registry: Registry
    rules: Rules
    events: EventHub
    audit: Audit
    clock: FakeClock
    ledger: MemoryLedger
    bucket: MemoryBucket
    lease: MemoryLease
    messaging: MemoryMessaging
    options: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    session: aiohttp.ClientSession | None = None
    document: dict[str, Any] = field(default_factory=lambda: {"paths": {}})

    def application(self) -> Any:
        return build(
            control=self.control,
            registry=self.registry,
            rules=self.rules,
            events=self.events,
            audit=self.audit,
            clock=self.clock,
            tokens=lambda token: TOKENS.get(token.removesuffix("-token")),
            **self.options,
        )

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **kwargs: Any
    ) -> Answer:
        assert self.session is not None
        headers = {**kwargs.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}-token"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, self.url + path, data=body, headers=headers, skip_auto_headers=["Content-Type"], **kwargs
        ) as response:
            answer = Answer(response.status, response.headers, await response.read())
        self.check_documented(method, path, answer)
        return answer

    def check_documented(self, method: str, path: str, answer: Answer) -> None:
        """No answer of any test may be one that the OpenAPI document does not have."""
        operation = openapi.operation_at(self.document, method, path.partition("?")[0])
        if operation is None or answer.status == 500:  # a defect that the test has planted
            return
        response = operation["responses"].get(str(answer.status))
        assert response is not None, f"{method} {path} -> {answer.status} is not documented"
        if answer.body:
            kind = answer.headers["Content-Type"].partition(";")[0]
            assert kind in response.get("content", {}), f"{method} {path} -> {answer.status} {kind} is not documented"

    async def get(self, path: str, **kwargs: Any) -> Answer:
        return await self.call("GET", path, **kwargs)

    async def post(self, path: str, body: Any = None, **kwargs: Any) -> Answer:
        return await self.call("POST", path, body, **kwargs)

    def add_node(self, **fields: Any) -> str:
        node_id = ids.new_node_id()
        self.registry.put(node_record(node_id, **fields))
        return node_id


@pytest.fixture
def parts() -> Api:
    """Everything behind the API, before it listens; a test may set ``options`` of ``build``."""
    clock = FakeClock(START)
    registry = Registry(clock=clock, default_interval=5.0)
    bucket, lease, messaging, ledger = MemoryBucket(), MemoryLease(), MemoryMessaging(), MemoryLedger()
    events = EventHub(clock)
    rules = Rules(
        bucket=bucket.fenced(lease),
        lease=lease,
        messaging=messaging,
        clock=clock,
        followers=registry.nodes,
        events=events,
    )
    return Api(
        control=FakeControl(registry),
        registry=registry,
        rules=rules,
        events=events,
        audit=Audit(clock=clock, ledger=ledger),
        clock=clock,
        ledger=ledger,
        bucket=bucket,
        lease=lease,
        messaging=messaging,
    )


@pytest_asyncio.fixture
async def api(parts: Api) -> AsyncIterator[Api]:
    """The API on a free port of loopback."""
    listener = await listen(parts.application(), "127.0.0.1:0", shutdown_timeout=0.2)
    async with aiohttp.ClientSession() as session:
        parts.url, parts.session = listener.url, session
        parts.document = (await parts.get("/api/openapi.json")).json()
        yield parts
    await listener.close()


@pytest.fixture
def make() -> Any:
    """The makers of records above, for tests: conftest is no module that they could import."""

    class Make:
        pool_view = staticmethod(pool_view)
        node_record = staticmethod(node_record)
        operation = staticmethod(operation)
        job = staticmethod(job)
        decision = staticmethod(decision)
        start = START

    return Make


@pytest.fixture
def recorded() -> Any:
    """What the original answered: (status, body) by the name of the recording."""

    def read(name: str) -> tuple[int, str]:
        head, _, body = (RECORDED / f"{name}.txt").read_text().partition("\n\n")
        return int(head.split()[1]), body

    return read


@pytest.fixture
def node_session() -> bytes:
    """What the original's node sent on its one connection: a registration and three heartbeats."""
    return (RECORDED / "node_session.bin").read_bytes()
