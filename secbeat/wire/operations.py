"""Operations: intents to create or destroy one node, as the orchestrator records them under ``op.<op_id>``.

    create    pending ──▶ accepted ──▶ booting ──▶ succeeded
                 │            │           ├──────▶ failed            (deadline, job failed: its machine is destroyed)
    destroy   pending ──▶ draining ──▶ drained ──▶ tearing_down ──▶ succeeded
                 │            └─────▶ cancelled                      (undrain before the listener closed)
                 └─────▶ needs_operator                              (the receiver cannot destroy, retries exhausted)

``pending`` is written before any effect; every later state is written after the effect that it names was confirmed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secbeat.wire.base import Count, Moment, NodeId, OpId, PoolName, Record, Text, Wire
from secbeat.wire.jobs import Machine
from secbeat.wire.webhook import Action, Reason

OperationState = Literal[
    "pending",
    "accepted",
    "booting",
    "draining",
    "drained",
    "tearing_down",
    "succeeded",
    "failed",
    "cancelled",
    "needs_operator",
]
StageName = Literal["notice", "drain", "webhook", "queue", "engine", "boot", "join", "rotation", "teardown", "confirm"]
ENDED: frozenset[OperationState] = frozenset({"succeeded", "failed", "cancelled", "needs_operator"})


class OperationError(Wire):
    """Why an operation failed or waits: a catalogue code and one sentence."""

    code: Reason
    message: Text
    task: str | None = Field(None, max_length=500)


class Stage(Wire):
    """A part of an operation's time; the stages of an ended operation add up to its wall time.

    ``ended_at`` is the moment as its own record has it, perhaps by another machine's clock. ``seconds`` are counted
    between such moments, never below 0: a stage that ended before the one ahead of it took no time of its own.
    """

    name: StageName
    ended_at: Moment
    seconds: float = Field(ge=0)


class OperationRecord(Record):
    """``op.<op_id>``."""

    op_id: OpId
    cluster_id: NodeId
    action: Action
    pool: PoolName
    node_id: NodeId
    epoch: Count = 0
    blueprint: str = Field("default", max_length=64)
    reason: Reason
    requested_by: str = Field("autoscaler", max_length=128, description="'autoscaler' or the name of an API token.")
    state: OperationState = "pending"
    created_at: Moment
    deadline: Moment
    updated_at: Moment
    ended_at: Moment | None = None
    attempts: Count = Field(0, description="Calls of the current step (webhook or terminate) so far.")
    calls: Count = Field(0, description="Calls of all steps so far.")
    next_attempt_at: Moment | None = None
    tracked: bool | None = Field(
        None, description="Whether the receiver knows op_ids; false: a 2xx was all it said, and it is never sent again."
    )
    failed_node_id: NodeId | None = Field(None, description="Self-healing: the dead node that this one replaces.")
    drain_deadline: Moment | None = None
    machine: Machine | None = None
    error: OperationError | None = Field(None, description="The end's reason, or the latest trouble while it goes on.")
    stage: str = Field("", max_length=200, description="What the job is doing, from its record.")
    by_hand: bool = Field(False, description="A person starts the machine; the receiver is never asked.")
    stages: tuple[Stage, ...] = Field((), description="Where the time went so far, in order.")
    traceparent: str | None = Field(
        None, max_length=55, description="W3C trace context of the operation's own span; None: no traces."
    )
    may_exist: bool = Field(False, description="A request may have arrived: there may be a machine to destroy.")

    @property
    def ended(self) -> bool:
        return self.state in ENDED
