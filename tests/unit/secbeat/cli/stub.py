"""An HTTP service with the orchestrator's and the provisioner's routes and canned answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from secbeat.errors import SecbeatError

NODE = "1f9c2a7e-0000-4000-8000-000000000001"
TWIN = "1f9c2a7e-0000-4000-8000-000000000002"
OTHER = "abcdef12-0000-4000-8000-000000000003"
OP = "01JD2K000000000000000000A1"
OP2 = "01JD2K000000000000000000B2"
CLUSTER = "99999999-0000-4000-8000-000000000009"
AT = "2026-01-31T03:00:00.000Z"
TOKEN = "stub-token"

SNAPSHOT = {"pool": "web", "active": 2, "pending": 1, "fresh": 2, "cpu": 0.42, "memory": 0.3, "connections": 12}
DECISION = {
    "v": 1,
    "pool": "web",
    "revision": 7,
    "at": AT,
    "direction": "hold",
    "size": 0,
    "code": "WITHIN_LIMITS",
    "sentence": "CPU 42% is within 30% to 80%",
    "clamps": [{"code": "COOLDOWN", "sentence": "a scale-down waits 2m"}],
    "capacity": 3,
    "desired": 3,
    "snapshot": SNAPSHOT,
    "equal_count": 5,
}
POOL = {
    "name": "web",
    "revision": 3,
    "mode": "active",
    "min": 1,
    "max": 10,
    "capacity": 3,
    "active": 2,
    "pending": 1,
    "draining": 0,
    "failed": 0,
    "desired": 3,
    "cpu": 0.42,
    "blueprint": "default",
    "policy": {"scale_up_cpu_threshold": 0.8},
    "pause": None,
    "override": None,
    "breaker": {"failures": 0, "open_since": None},
    "decision": DECISION,
}


def node(node_id: str, name: str) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "public_ip": "127.0.1.10",
        "last_heartbeat": AT,
        "status": "Active",
        "metrics": {"active_connections": 12},
        "registered_at": AT,
        "config": {"node_type": "proxy", "tags": []},
        "pool": "web",
        "state": "active",
        "state_since": AT,
        "name": name,
        "address": "127.0.1.10",
        "proxy_port": 8443,
        "cpu": 0.42,
        "rps": 80.5,
        "protected": False,
    }


def operation(op_id: str = OP, **changes: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "op_id": op_id,
        "cluster_id": CLUSTER,
        "action": "destroy",
        "pool": "web",
        "node_id": NODE,
        "reason": "MANUAL",
        "requested_by": "admin",
        "state": "draining",
        "created_at": AT,
        "deadline": AT,
        "updated_at": AT,
        "attempts": 1,
        "error": None,
        "stage": "",
        **changes,
    }


def job(op_id: str = OP, **changes: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "op_id": op_id,
        "action": "create",
        "pool": "web",
        "node_id": NODE,
        "state": "failed",
        "created_at": AT,
        "started_at": AT,
        "finished_at": AT,
        "engine": "ansible",
        "progress": {"stage": "Start the node", "tasks_done": 3},
        "error": {"code": "TASK_FAILED", "message": "disk full \x1b[31mred\x1b[0m", "task": "Start the node"},
        **changes,
    }


EVENTS = [
    {"v": 1, "seq": n, "at": AT, "kind": "node.joined", "sentence": f"node {n} joined", "pool": "web", "facts": {}}
    for n in (1, 2, 3)
]
LOG = b"PLAY [all]\n" + b"x" * 100_000 + b"\nlast line without end"


class Stub:
    """State that tests may change; requests are recorded as (method, path, query, headers, body)."""

    NODE, TWIN, OTHER, OP, OP2, EVENTS, LOG, POOL = NODE, TWIN, OTHER, OP, OP2, EVENTS, LOG, POOL
    operation, job = staticmethod(operation), staticmethod(job)

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str], Any]] = []
        self.answers: dict[tuple[str, str], Any] = {}
        self.drop_after: dict[str, int] = {}
        self.drop_next: Any = None
        self.hello: int | None = None

    def paths(self, method: str) -> list[str]:
        return [path for verb, path, *_ in self.requests if verb == method]

    def body(self, path: str) -> Any:
        return next(body for _, known, _, _, body in reversed(self.requests) if known == path)

    def answer(self, method: str, path: str) -> Any:
        if (method, path) in self.answers:
            found = self.answers[method, path]
            return found() if callable(found) else found
        return _ROUTES.get((method, path))


_API = "/api/v1"
_PAGE = {"next": None}
_WHY = {"name": "web", "sentence": DECISION["sentence"], "fix": "secbeat resume web", "decision": DECISION}
_NODE_WHY = {"node_id": NODE, "pool": "web", "state": "active", "sentence": "It serves", "blocked_by": ["PROTECTED"]}
_JOIN = {"v": 1, "server_url": "http://127.0.0.1:3030", "cluster_id": CLUSTER, "node_id": NODE, "op_id": OP,
         "pool": "web", "secret": "JOIN-SECRET-CANARY", "expires_at": AT}  # fmt: skip
_AUDIT = {"v": 1, "event_id": "01JD2K000000000000000000D4", "at": AT, "who": "admin", "scope": "admin",
          "peer": "127.0.0.1", "what": "POST /x", "status": 200}  # fmt: skip
_ROUTES: dict[tuple[str, str], Any] = {
    ("GET", "/healthz"): {"status": "ok"},
    ("GET", "/readyz"): {"status": "ready"},
    ("GET", f"{_API}/pools"): {"items": [POOL], **_PAGE},
    ("GET", f"{_API}/pools/web"): POOL,
    ("GET", f"{_API}/pools/web/why"): _WHY,
    ("POST", f"{_API}/pools/web/scale"): POOL,
    ("POST", f"{_API}/pools/web/pause"): POOL,
    ("POST", f"{_API}/pools/web/resume"): POOL,
    ("POST", f"{_API}/pools/web/nodes"): _JOIN,
    ("GET", f"{_API}/nodes"): [node(NODE, "web-1f9c2a7e"), node(TWIN, "web-twin"), node(OTHER, "web-abcdef12")],
    ("GET", f"{_API}/nodes/{NODE}"): node(NODE, "web-1f9c2a7e"),
    ("GET", f"{_API}/nodes/{NODE}/why"): _NODE_WHY,
    ("POST", f"{_API}/nodes/{NODE}/drain"): operation(),
    ("POST", f"{_API}/nodes/{NODE}/undrain"): operation(state="cancelled"),
    ("POST", f"{_API}/nodes/{NODE}/protect"): node(NODE, "web-1f9c2a7e"),
    ("GET", f"{_API}/operations"): {"items": [operation(), operation(OP2)], **_PAGE},
    ("GET", f"{_API}/operations/{OP}"): operation(),
    ("GET", f"{_API}/jobs"): {"items": [job(), job(OP2)], **_PAGE},
    ("GET", f"{_API}/jobs/{OP}"): job(),
    ("POST", f"{_API}/jobs/{OP}/cancel"): job(),
    ("GET", f"{_API}/decisions"): {"items": [DECISION], **_PAGE},
    ("GET", f"{_API}/audit"): {"items": [_AUDIT], **_PAGE},
    ("GET", f"/jobs/{OP}"): job(),
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stub: Stub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.stub.requests.append((method, parts.path, query, headers, json.loads(raw) if raw else None))
        if parts.path == f"{_API}/events":
            return self._events(query, headers)
        if parts.path == f"/jobs/{OP}/log":
            return self._log(int(query.get("offset", "0")))
        found = self.server.stub.answer(method, parts.path)
        if found is None:
            found = SecbeatError("NOT_FOUND", why=f"{method} {parts.path}", status=404)
        if isinstance(found, SecbeatError):
            return self._send(found.status, json.dumps(found.problem()).encode(), "application/problem+json")
        if isinstance(found, tuple):
            return self._send(found[0], found[1], "text/plain")
        return self._send(200, json.dumps(found).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self, query: dict[str, str], headers: dict[str, str]) -> None:
        after = int(headers.get("last-event-id", "0"))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.server.stub.hello is not None and after == 0:
            self.wfile.write(b": hello\nid: %d\n\n" % self.server.stub.hello)
        left = self.server.stub.drop_after.get("events", len(EVENTS))
        for event in EVENTS:
            if event["seq"] > after and left > 0:
                left -= 1
                self.wfile.write(b": ping\n\nid: %d\ndata: %s\n\n" % (event["seq"], json.dumps(event).encode()))
        if left == 0 and "events" in self.server.stub.drop_after:
            self.wfile.write(b'id: 99\ndata: {"cut')
            if self.server.stub.drop_next is not None:
                self.server.stub.drop_next()
        self.close_connection = True

    def _log(self, offset: int) -> None:
        end = min(len(LOG), offset + self.server.stub.drop_after.get("log", len(LOG)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(LOG) - offset))
        self.end_headers()
        self.wfile.write(LOG[offset:end])
        if end < len(LOG):
            self.close_connection = True


@contextmanager
def running() -> Iterator[Stub]:
    """The stub on a free port of 127.0.0.1."""
    server = _Server(("127.0.0.1", 0), Handler)
    stub = server.stub = Stub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
