"""The one function that changes the state of a node."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from secbeat.wire.nodes import NodeRecord, NodeState


class IllegalTransition(Exception):
    """A change of state that the diagram does not have: a defect of the caller, and nothing was changed."""


# requested ─▶ provisioning ─▶ booting ─▶ joining ─▶ active ◀──▶ unreachable ─▶ failed ─▶ gone
#     │             │             │          │         │  ▲ ▲                      │
#     │             │             │          ▼         ▼  │ └──────────────────────┘ (it came back unreplaced)
#     │             │             │        warm ──▶ draining ─▶ terminating ─▶ gone
#     └─────────────┴─────────────┴──▶ failed, gone  (the boot failed, or was cancelled)
#
# A step may be skipped forward (a join can be seen before the job's record says "booting"); only these go back:
# draining ─▶ active (undrain), unreachable ─▶ active or warm, failed ─▶ active or warm.
# aside: quarantined (a machine that nobody here asked for) ─▶ joining (adopted), terminating or gone.
_LEAVES: frozenset[NodeState] = frozenset({"terminating", "failed", "gone"})
_UP: frozenset[NodeState] = frozenset({"active", "warm", "draining", "unreachable"})
TRANSITIONS: dict[NodeState, frozenset[NodeState]] = {
    "requested": _LEAVES | {"provisioning", "booting", "joining", "active"},
    "provisioning": _LEAVES | {"booting", "joining", "active"},
    "booting": _LEAVES | {"joining", "active"},
    "joining": _LEAVES | _UP,
    "active": _LEAVES | {"warm", "draining", "unreachable"},
    "warm": _LEAVES | {"active", "draining", "unreachable"},
    "draining": _LEAVES | {"active", "unreachable"},
    "terminating": frozenset({"failed", "gone"}),
    "unreachable": _LEAVES | {"active", "warm", "draining"},
    "failed": frozenset({"active", "warm", "draining", "terminating", "gone"}),
    "gone": frozenset(),
    "quarantined": frozenset({"joining", "terminating", "gone"}),
}


def advance(record: NodeRecord, state: NodeState, *, now: datetime, **changes: Any) -> NodeRecord:
    """The record in ``state``, with ``changes`` to its other fields.

    The same state again changes only the other fields; otherwise ``state_since`` becomes ``now``.

    Raises:
        IllegalTransition: the diagram has no such arrow.
        TypeError: a change names no field of the record, or one that identifies it.
        pydantic.ValidationError: a changed field has a wrong value.
    """
    allowed = NodeRecord.model_fields.keys() - {"v", "node_id", "state", "state_since"}
    if wrong := changes.keys() - allowed:
        raise TypeError(f"not a field of NodeRecord that may change: {', '.join(sorted(wrong))}")
    if state != record.state:
        if state not in TRANSITIONS[record.state]:
            raise IllegalTransition(f"node {record.node_id}: {record.state} -> {state}")
        changes = {**changes, "state": state, "state_since": now}
    fields = {name: getattr(record, name) for name in NodeRecord.model_fields}
    return NodeRecord.model_validate({**fields, **changes})
