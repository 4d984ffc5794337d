"""What the HTTP API asks of the orchestrator's core.

Handlers translate between HTTP and this Protocol and decide nothing; the core knows no HTTP. Whatever a method
refuses, it refuses with an error of ``secbeat.errors``: RefusedError (409) for limits, pauses and stale revisions,
`Missing` (404) for what does not exist, ``Unavailable`` of the store becomes 503.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Protocol

from secbeat.errors import SecbeatError
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.jobs import JobRecord
from secbeat.wire.nodes import NodeWhy
from secbeat.wire.operations import OperationRecord
from secbeat.wire.pools import PauseRequest, PoolView, PoolWhy, ResumeRequest, ScaleRequest
from secbeat.wire.registration import JoinFile, JoinSecret, RegisterRequest, RegisterResponse


class Missing(SecbeatError):
    """No such pool, node, operation or job."""

    http_status: ClassVar[int] = 404


class PoolControl(Protocol):
    """Pools: what is, and what operators change. ``by`` names the caller."""

    def pools(self) -> Sequence[PoolView]: ...

    def pool(self, name: str) -> PoolView: ...

    def why_pool(self, name: str) -> PoolWhy: ...

    def decisions(self, pool: str | None = None, *, newest: int = 100) -> Sequence[DecisionRecord]:
        """From memory, oldest first."""
        ...

    async def decision_at(self, pool: str, at: datetime) -> DecisionRecord | None:
        """The decision in force at a time, from the ledger."""
        ...

    async def scale(self, name: str, request: ScaleRequest, *, by: str) -> PoolView: ...

    async def pause(self, name: str, request: PauseRequest, *, by: str) -> PoolView: ...

    async def resume(self, name: str, request: ResumeRequest, *, by: str) -> PoolView: ...

    async def retire(self, name: str, *, by: str) -> PoolView:
        """Take the pool to zero by operations, ignoring min, until ``resume``."""
        ...


class NodeControl(Protocol):
    """Nodes: joining and leaving."""

    async def register(self, request: RegisterRequest, *, peer: str, host: str, token: str | None) -> RegisterResponse:
        """A join, a re-join (``token``: the management token that the node holds) or an original-form registration.

        ``host`` is the Host header's value, for the URLs of the answer; ``peer`` the TCP peer's address.
        """
        ...

    async def adopt(self, node_id: str, *, peer: str) -> bool:
        """A heartbeat of an unknown node: True if its peer lies within ``legacy_nodes`` and it is now known."""
        ...

    async def join_secret(self, op_id: str) -> JoinSecret:
        """A fresh one-use secret for an unfinished create operation; any earlier one of it ends."""
        ...

    async def new_node(self, pool: str, *, server_url: str, by: str) -> JoinFile:
        """A create operation whose machine a person starts by hand."""
        ...

    def why_node(self, node_id: str) -> NodeWhy: ...

    async def drain(self, node_id: str, *, reason: str, by: str) -> OperationRecord:
        """Drain, then tear down. The same node again returns the same operation."""
        ...

    async def undrain(self, node_id: str, *, by: str) -> OperationRecord: ...

    async def protect(self, node_id: str, *, on: bool, by: str) -> None: ...


class OperationControl(Protocol):
    """Operations and the jobs that carry them out."""

    def operations(self, pool: str | None = None, *, open_only: bool = False) -> Sequence[OperationRecord]: ...

    def operation(self, op_id: str) -> OperationRecord: ...

    async def job_report(self, op_id: str, record: JobRecord) -> None:
        """A receiver that cannot speak NATS reports a job by the callback route."""
        ...

    async def jobs(self) -> Sequence[JobRecord]: ...

    async def job(self, op_id: str) -> JobRecord: ...

    async def cancel_job(self, op_id: str, *, by: str) -> JobRecord: ...


class Control(PoolControl, NodeControl, OperationControl, Protocol):
    """The whole core."""

    @property
    def leader(self) -> bool:
        """Whether this orchestrator holds the lease; otherwise everything that changes state is refused."""
        ...

    @property
    def epoch(self) -> int: ...
