"""What the original's programs can read: their structs, as strict as their deserialiser (secbeat-contracts 3).

Unknown fields are ignored, integers are taken for floats and never the other way, strings for numbers never.
"""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

U64 = Annotated[int, Field(ge=0, le=2**64 - 1)]
U32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
Ip = IPv4Address | IPv6Address
UTC = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.(\d{3}|\d{6}|\d{9}))?Z$")


class Struct(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    @classmethod
    def read(cls, raw: bytes):
        """The struct; raises ValueError as the original's extractor would answer 422."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise ValueError(str(error)) from None


class Config(Struct):
    node_type: str
    region: str | None = None
    tags: list[str]


class Register(Struct):
    public_ip: Ip
    config: Config


class Metrics(Struct):
    cpu_usage: float
    memory_usage: float
    packets_per_second: U64
    active_connections: U64
    total_requests: U64
    ddos_blocks: U64
    waf_blocks: U64


class Heartbeat(Struct):
    node_id: UUID
    metrics: Metrics
    status: Literal["Active", "Draining", "Terminating", "Dead", "Registered"]


class AssignedConfig(Struct):
    listen_addr: str
    backend_addr: str
    tls_enabled: bool
    ddos_enabled: bool
    waf_enabled: bool
    max_connections: U32
    rate_limit_rps: U32


class Registered(Struct):
    """What the original's node needs of an answer."""

    node_id: UUID
    heartbeat_interval: U64
    assigned_config: AssignedConfig | None = None


class Terminate(Struct):
    reason: str
    timestamp: str
    grace_period_seconds: U64


class FleetMetrics(Struct):
    active_nodes: U64
    avg_cpu_usage: float
    avg_memory_usage: float
    total_connections: U64


class ControlCommand(Struct):
    """What the original's node needs of a message on secbeat.control.commands."""

    command_id: UUID
    action: Literal["ADD_DYNAMIC_RULE", "REMOVE_DYNAMIC_RULE"]
    rule_type: Literal["IP_BLOCK"]
    target: Ip
    ttl_seconds: U64 | None = None
    parameters: Any = None


class NodeInfo(Struct):
    """What a client of the original's list reads."""

    node_id: UUID
    public_ip: Ip
    last_heartbeat: AwareDatetime
    status: Literal["Active", "Draining", "Terminating", "Dead", "Registered"]
    metrics: Metrics | None
    registered_at: AwareDatetime
    config: Config


def utc(text: str) -> datetime:
    """A time as the original's orchestrator writes it: suffix Z; 0, 3, 6 or 9 digits."""
    if not UTC.match(text):
        raise ValueError(f"not in the original's form: {text}")
    return datetime.fromisoformat(text)
