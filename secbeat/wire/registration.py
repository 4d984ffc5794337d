"""Joining: the original's registration, and ours, which is the original's with a ``join`` object."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import Field, PlainSerializer, SecretStr, WithJsonSchema

from secbeat.wire.base import Moment, NodeId, OpId, PoolName, Record, Wire

# Hidden wherever it is shown, plain only in the JSON that carries it to its owner.
Sent = Annotated[
    SecretStr,
    PlainSerializer(lambda value: value.get_secret_value(), when_used="json"),
    WithJsonSchema({"type": "string", "format": "password"}),
]


class NodeConfig(Wire):
    """What the original's node says of itself."""

    node_type: str = Field(max_length=256)
    region: str | None = Field(None, max_length=256)
    tags: list[str] = Field(max_length=64)


class Listening(Wire):
    """The ports that a node listens on; never an address: the orchestrator dials what the provisioner reported."""

    proxy_port: int = Field(8443, ge=1, le=65535)
    management_port: int = Field(9999, ge=0, le=65535, description="0: management port disabled")
    metrics_port: int = Field(9090, ge=0, le=65535)


class Join(Wire):
    """Our part of a registration. First join: ``secret``. A re-join has none and sends the management token instead."""

    node_id: NodeId
    boot_id: NodeId
    pool: PoolName
    op_id: OpId | None = None
    secret: str | None = Field(None, max_length=256)
    nats_public_key: str | None = Field(None, max_length=128, pattern=r"^U[A-Z2-7]{55}$")
    listening: Listening = Listening()
    agent_version: str = Field("", max_length=64)


class RegisterRequest(Wire):
    """``POST /api/v1/nodes/register``."""

    public_ip: IPv4Address | IPv6Address
    config: NodeConfig
    join: Join | None = None


class Endpoints(Wire):
    """Addresses in the answer, built from the Host that the node used."""

    heartbeat_url: str
    control_url: str


class Credentials(Wire):
    """What a node that joined with a secret gets; it keeps them in files of mode 0600."""

    cluster_id: NodeId
    epoch: int = Field(ge=0)
    management_token: Sent
    nats_url: str | None = None
    nats_jwt: Sent | None = None
    renew_before: Moment | None = None


class RegisterResponse(Wire):
    """The original's answer; ``credentials`` only after a join."""

    node_id: NodeId
    heartbeat_interval: int = Field(ge=1, description="Seconds; the original's node requires an integer.")
    endpoints: Endpoints
    heartbeat_interval_seconds: float | None = None
    credentials: Credentials | None = None


class JoinFile(Record):
    """What a machine needs to join: a file of mode 0600, written by the provisioner or ``secbeat nodes new``."""

    server_url: str
    cluster_id: NodeId
    node_id: NodeId
    op_id: OpId
    pool: PoolName
    secret: Sent
    expires_at: Moment


class JoinSecret(Wire):
    """``POST /api/v1/operations/{op_id}/join``, service scope."""

    cluster_id: NodeId
    node_id: NodeId
    op_id: OpId
    pool: PoolName
    secret: Sent
    expires_at: Moment
