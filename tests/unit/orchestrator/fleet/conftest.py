from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field

import msgspec
import pytest

from orchestrator.fleet import Node, Registry
from secbeat.subjects import heartbeat
from secbeat.testing import FakeClock
from secbeat.wire.heartbeat import LegacyHeartbeat
from secbeat.wire.nodes import NodeRecord

INTERVAL = 5.0

# Otherwise pytest-asyncio asks for the main thread's loop, and Python makes one that nobody closes.
asyncio.set_event_loop(None)


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


@dataclass
class Fleet:
    """A registry, its clock, and nodes that beat."""

    clock: FakeClock = field(default_factory=FakeClock)
    signals: list[tuple[str, str]] = field(default_factory=list)
    seqs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry = Registry(
            clock=self.clock, default_interval=INTERVAL, on_signal=lambda *signal: self.signals.append(signal)
        )

    def record(self, number: int = 1, state: str = "active", **fields: object) -> NodeRecord:
        now = self.clock.now()
        base = {
            "node_id": uid(number),
            "pool": "web",
            "state": state,
            "state_since": now,
            "created_at": now,
            "boot_id": uid(1000 + number),
            "registered_at": now,
        }
        return NodeRecord.model_validate({**base, **fields})

    def add(self, number: int = 1, state: str = "active", **fields: object) -> Node:
        return self.registry.put(self.record(number, state, **fields))

    def body(self, number: int = 1, metrics: dict | None = None, **fields: object) -> dict:
        node_id = uid(number)
        self.seqs[node_id] = self.seqs.get(node_id, 0) + 1
        return {
            "v": 1,
            "node_id": node_id,
            "boot_id": uid(1000 + number),
            "seq": self.seqs[node_id],
            "sent_at": "2026-01-01T00:00:00.000Z",
            "status": "Active",
            "pool": "web",
            "metrics": {
                "cpu": 0.42,
                "memory": 0.31,
                "connections": 12,
                "in_flight": 3,
                "rps": 80.5,
                "errors_per_second": 0.5,
                **(metrics or {}),
            },
            "blocklist_version": 7,
            "agent_version": "1.0",
            **fields,
        }

    def beat(
        self, number: int = 1, metrics: dict | None = None, *, subject: str | None = None, **fields
    ) -> Node | None:
        payload = msgspec.json.encode(self.body(number, metrics, **fields))
        self.registry.on_frame(subject or heartbeat(uid(number)), payload)
        return self.registry.get(uid(number))

    def raw(self, payload: bytes, number: int = 1) -> Node | None:
        self.registry.on_frame(heartbeat(uid(number)), payload)
        return self.registry.get(uid(number))

    def silent(self, number: int = 1) -> bool:
        return self.registry.silent(self.registry.get(uid(number)), self.clock.monotonic())

    def load(self, number: int = 1) -> tuple:
        """Everything that a heartbeat may change."""
        node = self.registry.get(uid(number))
        names = ("boot_id", "seq", "received", "deadline", "cpu", "memory", "connections", "in_flight", "rps")
        more = ("errors_per_second", "requests", "metrics_received", "metrics_until", "reported_status", "state")
        return tuple(getattr(node, name) for name in names + more)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def legacy():
    """A heartbeat in the original's form."""

    def make(number: int = 1, *, status: str = "Active", **metrics: object) -> LegacyHeartbeat:
        base = {
            "cpu_usage": 67.2,
            "memory_usage": 3.6,
            "packets_per_second": 10,
            "active_connections": 1,
            "total_requests": 100,
            "ddos_blocks": 2,
            "waf_blocks": 1,
        }
        return LegacyHeartbeat.model_validate(
            {"node_id": uid(number), "status": status, "metrics": {**base, **metrics}}
        )

    return make
