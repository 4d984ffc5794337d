"""Fakes of everything that has effects: time, store, lease, queue, ledger, messaging.

They behave as the real adapters do, refusals included: one contract suite
(``tests/integration/bus``) runs against both.
"""

from __future__ import annotations

from secbeat.testing.bucket import Call, MemoryBucket
from secbeat.testing.clock import FakeClock, settle
from secbeat.testing.lease import Leadership, MemoryLease
from secbeat.testing.ledger import MemoryLedger
from secbeat.testing.messaging import MemoryMessaging
from secbeat.testing.queue import MemoryQueue, MemoryWork
from secbeat.testing.waiting import until

__all__ = [
    "Call",
    "FakeClock",
    "Leadership",
    "MemoryBucket",
    "MemoryLease",
    "MemoryLedger",
    "MemoryMessaging",
    "MemoryQueue",
    "MemoryWork",
    "settle",
    "until",
]
