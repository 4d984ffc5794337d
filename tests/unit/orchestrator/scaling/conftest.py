from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.scaling import History, decide
from secbeat.settings import PoolSettings
from secbeat.wire.decisions import Candidate, DecisionRecord, PoolSnapshot

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

# Otherwise pytest-asyncio asks for the main thread's loop, and Python makes one that nobody closes.
asyncio.set_event_loop(None)


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


def seen(cpu: float | None = 0.5, active: int = 2, **fields: object) -> PoolSnapshot:
    """A pool of fresh, warm nodes, unless a field says otherwise; node 1 has the fewest connections."""
    idle = fields.get("silent", 0) + fields.get("warming", 0)
    fresh = fields.pop("fresh", active - idle if cpu is not None else 0)
    blocked = fields.pop("blocked", {})
    return PoolSnapshot(
        pool="web",
        active=active,
        fresh=fresh,
        cpu=cpu if fresh else None,
        memory=0.3 if fresh else None,
        candidates=fields.pop(
            "candidates",
            tuple(
                Candidate(node_id=uid(number), connections=10 * number, blocked_by=blocked.get(number))
                for number in range(1, min(active, 16) + 1)
            ),
        ),
        **fields,
    )


@dataclass
class Pool:
    """Evaluates one pool tick after tick, the history carried along."""

    policy: PoolSettings = field(default_factory=PoolSettings)
    history: History = field(default_factory=History)
    now: datetime = NOW

    def ask(self, snapshot: PoolSnapshot) -> DecisionRecord:
        return decide(self.policy, self.history, snapshot, self.now)

    def tick(self, snapshot: PoolSnapshot, *, times: int = 1, acted: bool = True) -> DecisionRecord:
        for _ in range(times):
            decision = self.ask(snapshot)
            self.history = self.history.after(decision, acted=acted)
            self.now += timedelta(seconds=self.policy.scaling_check_interval_seconds)
        return decision


@pytest.fixture
def pool():
    def make(history: dict | None = None, **policy: object) -> Pool:
        return Pool(PoolSettings(**policy), History(**(history or {})))

    return make


@pytest.fixture(name="seen")
def seen_fixture():
    return seen


@pytest.fixture(name="uid")
def uid_fixture():
    return uid
