"""One example of each body and answer, for the OpenAPI document; made from the models, so each is one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from orchestrator.http.context import DrainRequest, ProtectRequest
from secbeat.wire.base import Wire
from secbeat.wire.decisions import DecisionRecord, PoolSnapshot
from secbeat.wire.events import AuditEvent
from secbeat.wire.heartbeat import LegacyHeartbeat, LegacyMetrics
from secbeat.wire.jobs import JobRecord, Machine
from secbeat.wire.nodes import NodeView, NodeWhy
from secbeat.wire.operations import OperationRecord
from secbeat.wire.pools import NewNodeRequest, PauseRequest, PoolView, PoolWhy, ResumeRequest, ScaleRequest
from secbeat.wire.registration import (
    Endpoints,
    Join,
    JoinFile,
    JoinSecret,
    NodeConfig,
    RegisterRequest,
    RegisterResponse,
)
from secbeat.wire.rules import (
    BlockAnswer,
    BlockedInfo,
    BlockedIps,
    BlockedRule,
    BlockedStats,
    BlockRequest,
    RulesSnapshot,
)

_AT = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
_TIME = "2026-11-25T03:00:00.000Z"
_NODE, _BOOT = "3f0c9a52-8b1e-4c86-9d0e-6d1f4b7a2c11", "9b2d7f10-4c3e-4f5a-8a6b-0c1d2e3f4a5b"
_CLUSTER, _OP = "5a1e2d3c-4b5f-4a6e-9d7c-8b9a0f1e2d3c", "01JDG5Y3Q8V7N2M4K6H0T9R1WX"
_URL = "http://127.0.0.1:3030"
_CONFIG = NodeConfig(node_type="mitigation-node", region="local", tags=["waf"])
_MACHINE = Machine(id="web-3f0c9a52", name="web-3f0c9a52", address="10.0.0.17")
_DECISION = DecisionRecord(
    pool="web", at=_AT, direction="up", size=1, code="HIGH_FLEET_CPU_LOAD", capacity=2, desired=3, up_checks=2,
    sentence="CPU is 0.91, above 0.80 for 2 checks: one node more.",
    snapshot=PoolSnapshot(pool="web", active=2, fresh=2, cpu=0.91, memory=0.4, connections=120),
)  # fmt: skip
_WORK: dict[str, Any] = {
    "op_id": _OP, "cluster_id": _CLUSTER, "action": "create", "pool": "web", "node_id": _NODE, "created_at": _AT,
    "deadline": _AT + timedelta(minutes=15), "machine": _MACHINE,
}  # fmt: skip
_JOINING: dict[str, Any] = {
    "cluster_id": _CLUSTER, "node_id": _NODE, "op_id": _OP, "pool": "web", "secret": SecretStr("shown-once"),
    "expires_at": _AT + timedelta(minutes=15),
}  # fmt: skip
_BLOCKED: dict[str, Any] = {"reason": "scanner", "ttl_seconds": 3600, "metadata": None}

_MODELS: tuple[Wire, ...] = (
    DrainRequest(reason="kernel update"),
    ProtectRequest(on=True),
    ScaleRequest(size=4, for_seconds=7200, if_revision=12),
    PauseRequest(direction="in", for_seconds=3600, reason="release"),
    ResumeRequest(),
    NewNodeRequest(reason="a machine in the lab"),
    RegisterRequest(
        public_ip="10.0.0.17",
        config=_CONFIG,
        join=Join(node_id=_NODE, boot_id=_BOOT, pool="web", op_id=_OP, secret="from-the-join-file"),  # noqa: S106 - none
    ),
    RegisterResponse(
        node_id=_NODE,
        heartbeat_interval=5,
        endpoints=Endpoints(
            heartbeat_url=f"{_URL}/api/v1/nodes/heartbeat", control_url=f"{_URL}/api/v1/nodes/{_NODE}/commands"
        ),
    ),
    LegacyHeartbeat(
        node_id=_NODE,
        metrics=LegacyMetrics(
            cpu_usage=67.2, memory_usage=31.5, packets_per_second=10, active_connections=12, total_requests=4711,
            ddos_blocks=0, waf_blocks=3,
        ),
        status="Active",
    ),
    BlockRequest(ip="203.0.113.7", **_BLOCKED),
    BlockAnswer(success=True, message="IP 203.0.113.7 blocked successfully", command_id=_BOOT),
    BlockedIps(
        blocked_ips=[("203.0.113.7", BlockedInfo(blocked_at=_AT, blocked_by="manual_operator", **_BLOCKED))],
        stats=BlockedStats(total_blocked_ips=1, manual_blocks=1, auto_blocks=0),
    ),
    RulesSnapshot(version=7, complete=True, blocked=[BlockedRule(ip="203.0.113.7", expires_at=_AT)]),
    OperationRecord(reason="HIGH_FLEET_CPU_LOAD", updated_at=_AT, state="booting", tracked=True, **_WORK),
    JobRecord(state="running", attempt=1, started_at=_AT, **_WORK),
    _DECISION,
    AuditEvent(at=_AT, who="alice", scope="operate", peer="127.0.0.1", what="POST /api/v1/pools/web/pause", status=200),
    PoolView(
        name="web", revision=12, mode="active", min=1, max=10, capacity=2, active=2, pending=0, draining=0, failed=0,
        desired=3, cpu=0.91, blueprint="default", policy={"scale_up_cpu_threshold": 0.8}, decision=_DECISION,
    ),
    PoolWhy(name="web", sentence=_DECISION.sentence, decision=_DECISION),
    NodeView(
        node_id=_NODE, public_ip="10.0.0.17", last_heartbeat=_TIME, status="Active", metrics=None,
        registered_at=_TIME, config=_CONFIG, pool="web", state="active", state_since=_TIME, name="web-3f0c9a52",
        address="10.0.0.17", proxy_port=8443, management_port=9999, cpu=0.91, in_flight=3, rps=80.5,
    ),
    NodeWhy(node_id=_NODE, pool="web", state="active", sentence="It serves; the pool is at its minimum."),
    JoinSecret(**_JOINING),
    JoinFile(server_url=_URL, **_JOINING),
)  # fmt: skip

EXAMPLES: dict[type[Wire], Any] = {type(one): one.plain() for one in _MODELS}
