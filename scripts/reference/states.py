"""The states of nodes, operations and jobs: a diagram of each, and every transition that the code allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from orchestrator.fleet.lifecycle import TRANSITIONS
from orchestrator.operations import states
from scripts.reference.diagram import Arrow, Cell, svg
from scripts.reference.tables import table
from secbeat.wire.jobs import FINISHED, JobState
from secbeat.wire.nodes import WIRE_STATUS, NodeState
from secbeat.wire.operations import OperationState

_HEAD = """# States

Made from the tables that the code itself obeys: a transition that is not here is refused as a defect. States with
round ends are final.
"""
_NODES = """
## Nodes

The picture has the ways that a node usually goes; the table below it has all of them. A step may be skipped forward: a
join can be seen before the job's record says `booting`. `GET /api/v1/nodes` speaks the original's words, and lists the
states without such a word only with `?all=1`.
"""
_CREATE = """
## Operations that create a node

`pending` is written before any effect; every later state is written after the effect that it names was confirmed.
What may exist of a machine whose operation `failed` is destroyed by an operation of its own.
"""
_DESTROY = """
## Operations that destroy a node

`cancelled` is an `undrain` that came before the listener closed. `needs_operator` names a machine that you must remove
yourself: the receiver cannot destroy, or it tried until its attempts were used up.
"""
_JOBS = """
## Jobs

The provisioner's execution of one operation. A failed attempt that is worth another goes on as `running`; the record
counts the attempts.
"""

Table = Mapping[str, frozenset[str]]

NODE_CELLS: dict[str, Cell] = {
    "requested": (0, 0), "provisioning": (1, 0), "booting": (2, 0), "joining": (3, 0), "active": (4, 0),
    "unreachable": (5, 0), "quarantined": (3, 2), "warm": (3, 1), "draining": (4, 1), "failed": (5, 1),
    "terminating": (4, 2), "gone": (5, 2),
}  # fmt: skip
NODE_STORY: list[Arrow] = [
    ("requested", "provisioning"), ("provisioning", "booting"), ("booting", "joining"), ("joining", "active"),
    ("joining", "warm"), ("active", "unreachable"), ("unreachable", "active"), ("unreachable", "failed"),
    ("active", "draining"), ("draining", "active"), ("warm", "draining"), ("draining", "terminating"),
    ("terminating", "gone"), ("failed", "gone"), ("quarantined", "terminating"),
]  # fmt: skip
CREATE_CELLS: dict[str, Cell] = {
    "pending": (0, 0), "accepted": (1, 0), "booting": (2, 0), "succeeded": (3, 0), "failed": (2, 1),
}  # fmt: skip
DESTROY_CELLS: dict[str, Cell] = {
    "pending": (0, 0), "draining": (1, 0), "drained": (2, 0), "tearing_down": (3, 0), "succeeded": (4, 0),
    "cancelled": (1, 1), "failed": (3, 1), "needs_operator": (2, 1),
}  # fmt: skip
JOB_CELLS: dict[str, Cell] = {
    "queued": (0, 0), "running": (1, 0), "succeeded": (2, 0), "failed": (2, 1), "cancelled": (1, 1),
}  # fmt: skip
# The worker changes a job's state step by step and has no table; tests/docs holds these against its states.
JOBS: Table = {
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled"}),
}


def page() -> str:
    """The page."""
    nodes: Table = {str(state): frozenset(map(str, after)) for state, after in TRANSITIONS.items()}
    parts = [_HEAD, _NODES, drawn("Life of a node", NODE_CELLS, nodes, story=NODE_STORY), _node_table(nodes)]
    for heading, title, cells, after in (
        (_CREATE, "Life of a create operation", CREATE_CELLS, _plain(states._CREATE)),  # noqa: SLF001
        (_DESTROY, "Life of a destroy operation", DESTROY_CELLS, _plain(states._DESTROY)),  # noqa: SLF001
        (_JOBS, "Life of a job", JOB_CELLS, JOBS),
    ):
        parts += [heading, drawn(title, cells, after), table(["from", "to"], _listed(after))]
    return "\n".join(parts)


def drawn(title: str, cells: Mapping[str, Cell], after: Table, *, story: list[Arrow] | None = None) -> str:
    """The diagram of a table, or of those of its arrows that tell the story.

    Raises:
        ValueError: the code has states that the drawing lacks, or lacks an arrow of the story.
    """
    known = set(after) | {state for targets in after.values() for state in targets}
    if known != set(cells):
        raise ValueError(f"{title}: the code and the drawing differ in {sorted(known ^ set(cells))}")
    arrows = {(start, end) for start, targets in after.items() for end in targets}
    if wrong := set(story or ()) - arrows:
        raise ValueError(f"{title}: the code has no {sorted(wrong)}")
    ends = {state for state in known if not after.get(state)}
    shown = [arrow for start in cells for arrow in sorted(arrows) if arrow[0] == start]
    return f"```{{raw}} html\n{svg(title, cells, story or shown, ends=ends)}\n```\n"


def _plain(after: Mapping[OperationState, frozenset[OperationState]]) -> Table:
    return {str(state): frozenset(map(str, targets)) for state, targets in after.items()}


def _listed(after: Table) -> Iterator[tuple[str, str]]:
    for state, targets in after.items():
        yield f"`{state}`", ", ".join(f"`{target}`" for target in sorted(targets))


def _node_table(after: Table) -> str:
    rows = []
    for state in get_args(NodeState):
        targets = ", ".join(f"`{other}`" for other in get_args(NodeState) if other in after[state])
        rows.append((f"`{state}`", WIRE_STATUS[state] or "not listed", targets or "nothing: final"))
    return table(["state", "the original's word", "can become"], rows)


assert set(JOB_CELLS) == set(get_args(JobState)) == set(JOBS) | FINISHED  # noqa: S101 - a defect of this very file
