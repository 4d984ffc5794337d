"""Jobs and machines, as the provisioner records them in bucket ``jobs`` and everybody reads them.

    queued ──▶ running ──▶ succeeded
      │           ├──────▶ failed
      └───────────┴──────▶ cancelled

Keys: ``job.<op_id>`` (JobRecord), ``machine.<node_id>`` (MachineRecord).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secbeat.wire.base import Moment, NodeId, OpId, PoolName, Record, Text, Wire
from secbeat.wire.webhook import Action, Reason

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINISHED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})


class Machine(Wire):
    """Where a machine is; the orchestrator dials this address and never one that a node claims."""

    id: str = Field(max_length=256)
    name: str = Field(max_length=256)
    address: str = Field(max_length=256)
    proxy_port: int = Field(8443, ge=1, le=65535)
    management_port: int = Field(9999, ge=0, le=65535)
    blueprint_digest: str = Field("", max_length=128)


class JobError(Wire):
    """Why a job failed: a catalogue code, one sentence, the task that failed."""

    code: str
    message: Text
    task: str | None = Field(None, max_length=500)
    retryable: bool = True


class Progress(Wire):
    """What the job is doing."""

    stage: str = Field("", max_length=200, description="The task that runs, as the playbook names it.")
    tasks_done: int = 0


class JobRecord(Record):
    """``job.<op_id>``."""

    op_id: OpId
    cluster_id: NodeId
    action: Action
    pool: PoolName
    node_id: NodeId
    epoch: int = 0
    reason: Reason = "MANUAL"
    signed: bool = True
    blueprint: str = "default"
    blueprint_digest: str = ""
    engine: str = "ansible"
    target: str = "local"
    state: JobState = "queued"
    attempt: int = 0
    owner: str = Field("", description="The provisioner that runs it: host:pid:start.")
    created_at: Moment
    deadline: Moment
    started_at: Moment | None = None
    finished_at: Moment | None = None
    cancel_requested_at: Moment | None = None
    progress: Progress = Progress()
    error: JobError | None = None
    machine: Machine | None = None
    failed_node_id: NodeId | None = None
    traceparent: str | None = Field(
        None, max_length=55, description="W3C trace context that the webhook came with; None: no traces."
    )
    attempt_started_at: Moment | None = Field(None, description="When the attempt that runs, or the last one, began.")


class MachineRecord(Record):
    """``machine.<node_id>``: written before the engine starts a create, removed when a destroy is proved."""

    cluster_id: NodeId
    node_id: NodeId
    op_id: OpId
    pool: PoolName
    blueprint: str
    blueprint_digest: str
    target: str
    signed: bool = True
    created_at: Moment
    machine: Machine | None = Field(None, description="None until the create has reported it.")


class ListedMachine(Wire):
    """One entry of ``GET /machines``: what the target itself reports."""

    node_id: NodeId
    op_id: OpId | None = None
    cluster_id: NodeId | None = None
    pool: PoolName
    name: str
    address: str | None = None
    running: bool


class MachineList(Wire):
    """``GET /machines``; an incomplete list proves nothing."""

    target: str
    listed_at: Moment
    complete: bool
    machines: list[ListedMachine]
