"""A node's record, packed: a pydantic model costs four kilobytes, this a quarter of one.

Times are microseconds since 1970, positions stand for names, and what many nodes have in common is kept once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from secbeat import ids
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.registration import Listening, NodeConfig

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Shared(msgspec.Struct, frozen=True):
    """What many nodes have in common; ``config`` is the JSON of the original's config object."""

    config: bytes
    digest: str
    agent_version: str
    listening: tuple[int, int, int]


class PackedMachine(msgspec.Struct, array_like=True, gc=False):
    """See :class:`secbeat.wire.jobs.Machine`; "" as name: the deterministic one; None as id: the name."""

    name: str
    address: str
    proxy_port: int
    management_port: int
    id: str | None = None


class Packed(msgspec.Struct, array_like=True, gc=False):
    """The fields of :class:`NodeRecord` that a node has neither in slots nor in common with others."""

    state_since: int
    created_at: int
    registered_at: int | None
    op_id: str | None
    destroy_op_id: str | None
    public_ip: str  # "": the machine's address
    peer_address: str | None  # the same
    nats_public_key: str | None
    machine: PackedMachine | None
    rest: dict[str, Any]  # fields that this module does not know by name, where they differ from their default


_SLOTS = {"v", "node_id", "pool", "state", "boot_id", "legacy", "protected"}
_NAMED = _SLOTS | {"config", "listening", "agent_version"} | set(Packed.__struct_fields__)
_REST = {name: field.default for name, field in NodeRecord.model_fields.items() if name not in _NAMED}
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Packed).decode


def pack(record: NodeRecord) -> tuple[bytes, Shared]:
    """The record without what a node has in slots."""
    machine = record.machine
    address = "" if machine is None else machine.address
    packed = Packed(
        state_since=_microseconds(record.state_since),
        created_at=_microseconds(record.created_at),
        registered_at=None if record.registered_at is None else _microseconds(record.registered_at),
        op_id=record.op_id,
        destroy_op_id=record.destroy_op_id,
        public_ip="" if record.public_ip == address else record.public_ip,
        peer_address="" if record.peer_address == address else record.peer_address,
        nats_public_key=record.nats_public_key,
        machine=None
        if machine is None
        else PackedMachine(
            name="" if machine.name == ids.machine_name(record.pool, record.node_id) else machine.name,
            address=machine.address,
            proxy_port=machine.proxy_port,
            management_port=machine.management_port,
            id=None if machine.id == machine.name else machine.id,
        ),
        rest={name: value for name, default in _REST.items() if (value := getattr(record, name)) != default},
    )
    ports = record.listening
    shared = Shared(
        config=record.config.encode(),
        digest="" if machine is None else machine.blueprint_digest,
        agent_version=record.agent_version,
        listening=(ports.proxy_port, ports.management_port, ports.metrics_port),
    )
    return _encode(packed), shared


def unpack(data: bytes, pool: str, node_id: str) -> Packed:
    """The packed fields, nothing left out."""
    packed = _decode(data)
    machine = packed.machine
    if machine is not None:
        machine.name = machine.name or ids.machine_name(pool, node_id)
        machine.id = machine.name if machine.id is None else machine.id
        packed.public_ip = packed.public_ip or machine.address
        packed.peer_address = machine.address if packed.peer_address == "" else packed.peer_address
    return packed


def fields(packed: Packed, shared: Shared) -> dict[str, Any]:
    """What :func:`pack` was given, ready for ``NodeRecord.model_validate``."""
    machine = packed.machine
    proxy_port, management_port, metrics_port = shared.listening
    return {
        **packed.rest,
        "state_since": _moment(packed.state_since),
        "created_at": _moment(packed.created_at),
        "registered_at": None if packed.registered_at is None else _moment(packed.registered_at),
        "op_id": packed.op_id,
        "destroy_op_id": packed.destroy_op_id,
        "public_ip": packed.public_ip,
        "peer_address": packed.peer_address,
        "nats_public_key": packed.nats_public_key,
        "machine": None
        if machine is None
        else {
            "id": machine.id,
            "name": machine.name,
            "address": machine.address,
            "proxy_port": machine.proxy_port,
            "management_port": machine.management_port,
            "blueprint_digest": shared.digest,
        },
        "config": NodeConfig.model_validate_json(shared.config),
        "listening": Listening(proxy_port=proxy_port, management_port=management_port, metrics_port=metrics_port),
        "agent_version": shared.agent_version,
    }


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
