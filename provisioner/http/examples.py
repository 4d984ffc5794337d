"""One example of each body and answer, for the OpenAPI document; made from the models, so each is one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from provisioner.http.reading import Blueprint, BlueprintList, Jobs
from secbeat.wire.base import Wire
from secbeat.wire.jobs import JobRecord, ListedMachine, MachineList, Progress
from secbeat.wire.webhook import (
    FleetMetrics,
    Operation,
    UnsignedBody,
    UnsignedFleetMetrics,
    WebhookAnswer,
    WebhookBody,
)

_AT = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
_WORK: dict[str, Any] = {
    "cluster_id": "5a1e2d3c-4b5f-4a6e-9d7c-8b9a0f1e2d3c", "op_id": "01JDG5Y3Q8V7N2M4K6H0T9R1WX", "action": "create",
    "pool": "web", "node_id": "3f0c9a52-8b1e-4c86-9d0e-6d1f4b7a2c11", "epoch": 7,
    "deadline": _AT + timedelta(minutes=15),
}  # fmt: skip
_LOAD: dict[str, Any] = {
    "active_nodes": 2, "avg_cpu_usage": 0.91, "avg_memory_usage": 0.4, "total_connections": 120,
}  # fmt: skip
_JOB = JobRecord(
    state="running", attempt=1, created_at=_AT, started_at=_AT, progress=Progress(stage="Boot", tasks_done=3), **_WORK
)

_MODELS: tuple[Wire, ...] = (
    WebhookBody(reason="HIGH_FLEET_CPU_LOAD", timestamp=_AT, fleet_metrics=FleetMetrics(**_LOAD),
                operation=Operation(issued_at=_AT, **_WORK)),
    UnsignedBody(reason="HIGH_FLEET_CPU_LOAD", timestamp=_AT, fleet_metrics=UnsignedFleetMetrics(**_LOAD)),
    WebhookAnswer(status="accepted", op_id=_JOB.op_id, node_id=_JOB.node_id),
    _JOB,
    Jobs(items=[_JOB]),
    MachineList(
        target="local", listed_at=_AT, complete=True,
        machines=[ListedMachine(node_id=_JOB.node_id, op_id=_JOB.op_id, pool="web", name="web-3f0c9a52",
                                address="127.0.1.10", running=True)],
    ),
    BlueprintList(items=[
        Blueprint(name="default", digest="sha256:4f1c", engine="ansible", target="local", variables=["image"]),
    ]),
)  # fmt: skip

EXAMPLES: dict[type[Wire], Any] = {
    type(one): one.model_dump(mode="json", exclude_unset=isinstance(one, UnsignedBody)) for one in _MODELS
}
