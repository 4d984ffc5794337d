"""The gate: the one function through which every effect goes.

An effect is a webhook, a call on a node, a new operation: whatever changes the fleet. The gate is closed for
everybody while this process does not lead or NATS is away, and for a pool in mode ``observe``. What merely happened
(a node joined, a heartbeat came) is recorded without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from secbeat.errors import RefusedError, SecbeatError, UnreachableError
from secbeat.store import Lease, Messaging

T = TypeVar("T")


class GateClosed(Exception):
    """The effect was not carried out. ``code`` and ``sentence`` say why."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence

    def as_error(self) -> SecbeatError:
        """The same for a person who asked."""
        kind = UnreachableError if self.code in {"NOT_LEADER", "STATE_UNAVAILABLE"} else RefusedError
        return kind(self.code, why=self.sentence)


@dataclass(frozen=True)
class Gate:
    """``observed(pool)``: whether the pool only decides and records."""

    lease: Lease
    messaging: Messaging
    observed: Callable[[str], bool]

    def need_store(self) -> None:
        """Before a change that an operator asked for, which is no effect on the fleet by itself.

        Raises:
            UnreachableError: NOT_LEADER, STATE_UNAVAILABLE.
        """
        if (reason := self._away()) is not None:
            raise reason.as_error()

    def _away(self) -> GateClosed | None:
        if not self.lease.held:
            return GateClosed("NOT_LEADER", "another orchestrator holds the lease, or none does yet")
        if not self.messaging.connected:
            return GateClosed("STATE_UNAVAILABLE", "NATS is not connected: nothing changes until it is back")
        return None

    def closed(self, pool: str) -> GateClosed | None:
        """Why no effect on ``pool`` is possible now; None: it is open."""
        if (reason := self._away()) is not None:
            return reason
        if self.observed(pool):
            return GateClosed("OBSERVE_MODE", f"pool {pool} is in mode observe: it decides and records, and acts never")
        return None

    async def effect(self, pool: str, act: Callable[[int], Awaitable[T]]) -> T:
        """Carry out ``act(epoch)``, if the gate is open.

        Raises:
            GateClosed: it is not.
        """
        if (reason := self.closed(pool)) is not None:
            raise reason
        return await act(self.lease.epoch)
