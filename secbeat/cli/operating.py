"""Commands that change something: scale, pause, resume, drain, undrain, protect, jobs cancel."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from secbeat.cli import reading, views
from secbeat.cli.durations import parse_duration
from secbeat.cli.output import note
from secbeat.cli.session import Session, example, with_session

_API = ("api", "v1")
PoolArgument = Annotated[str, typer.Argument(help="Name of the pool.")]
NodeArgument = Annotated[str, typer.Argument(help="Id of the node, beginning of it, or its machine's name.")]
ForOption = Annotated[str | None, typer.Option("--for", metavar="DURATION", help="Ends by itself, e.g. 90s, 5m, 2h.")]
RevisionOption = Annotated[
    int | None, typer.Option("--if-revision", min=0, help="Refuse unless the pool still has this revision.")
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Return when it is done (or has failed).")]
TimeoutOption = Annotated[str, typer.Option("--timeout", metavar="DURATION", help="Longest wait; then exit code 6.")]


class Direction(StrEnum):
    """What a pause holds."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


@with_session
def scale(
    session: Session,
    pool: PoolArgument,
    size: Annotated[int, typer.Argument(min=0, max=100_000, help="Number of nodes.")],
    *,
    duration: ForOption = None,
    if_revision: RevisionOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan with its revision; do nothing.")] = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = "20m",
) -> None:
    """Set a pool to a size.

    The plan is told first. The loop keeps the pool there until the time is over, or until 'secbeat resume POOL'.
    """
    from secbeat.cli import planning, waiting

    body = _body(size=size, for_seconds=_seconds(duration), if_revision=if_revision)
    limit = parse_duration(timeout)
    client = session.client
    before = client.get(*_API, "pools", pool)
    planning.check_revision(before, if_revision)
    plan = planning.plan(before, size, _seconds(duration), session.now)
    if dry_run:
        session.output.text(planning.lines(plan), plan)
        return
    for line in planning.lines(plan):
        note(line)
    known = _ended(client, pool) if wait else set()
    view = client.post(*_API, "pools", pool, "scale", body=body)
    if wait:
        view = waiting.for_size(client, pool, size, waiting.Wait(limit, f"pool {pool}"), known=known)
    _print_pool(session, view)
    if not wait:
        note(f"Follow it: secbeat why {pool}; secbeat operations --pool {pool}")


def _ended(client: Any, pool: str) -> set[str]:
    rows = client.items(*_API, "operations", pool=pool)
    return {row["op_id"] for row in rows if row["state"] in {"failed", "needs_operator"}}


@with_session
def pause(
    session: Session,
    pool: PoolArgument,
    *,
    duration: ForOption = None,
    direction: Annotated[
        Direction, typer.Option("--direction", help="'out' holds growth, 'in' shrinking.")
    ] = Direction.BOTH,
    reason: Annotated[str, typer.Option("--reason", help="For those who wonder later.")] = "",
    if_revision: RevisionOption = None,
) -> None:
    """Hold a pool at its size.

    No growth, no shrinking, or neither, until the time is over or 'secbeat resume POOL'.
    """
    body = _body(
        direction=direction.value,
        for_seconds=_seconds(duration),
        reason=reason or None,
        if_revision=if_revision,
    )
    _print_pool(session, session.client.post(*_API, "pools", pool, "pause", body=body))
    if duration is None:
        note(f"The pause has no end. End it with: secbeat resume {pool}")


@with_session
def resume(session: Session, pool: PoolArgument, if_revision: RevisionOption = None) -> None:
    """End a pool's pause, override and freeze.

    A retired pool comes back as well.
    """
    body = _body(if_revision=if_revision)
    _print_pool(session, session.client.post(*_API, "pools", pool, "resume", body=body))


@with_session
def drain(
    session: Session,
    node: NodeArgument,
    reason: Annotated[str, typer.Option("--reason", help="For those who wonder later.")] = "",
    wait: WaitOption = False,
    timeout: TimeoutOption = "20m",
) -> None:
    """Let a node finish its requests, then remove it.

    The pool replaces it if it falls below its size.
    """
    from secbeat.cli import resolving, waiting

    limit = parse_duration(timeout)
    client = session.client
    operation = client.post(*_API, "nodes", resolving.node_id(client, node), "drain", body=_body(reason=reason or None))
    if wait:
        op_id = operation["op_id"]
        operation = waiting.for_operation(client, op_id, waiting.Wait(limit, f"drain {op_id}"), wanted="succeeded")
    _print_operation(session, operation)


@with_session
def undrain(session: Session, node: NodeArgument, wait: WaitOption = False, timeout: TimeoutOption = "20m") -> None:
    """Take a drain back while the node still listens."""
    from secbeat.cli import resolving, waiting

    limit = parse_duration(timeout)
    client = session.client
    operation = client.post(*_API, "nodes", resolving.node_id(client, node), "undrain")
    if wait:
        op_id = operation["op_id"]
        operation = waiting.for_operation(client, op_id, waiting.Wait(limit, f"undrain {op_id}"), wanted="cancelled")
    _print_operation(session, operation)


@with_session
def protect(
    session: Session,
    node: NodeArgument,
    off: Annotated[bool, typer.Option("--off", help="Take the protection away.")] = False,
) -> None:
    """Keep a node when its pool shrinks.

    'secbeat drain' still removes it.
    """
    from secbeat.cli import resolving

    client = session.client
    view = client.post(*_API, "nodes", resolving.node_id(client, node), "protect", body={"on": not off})
    session.output.rows([view], views.nodes([view], session.now), empty="")


@reading.jobs.command("cancel", epilog=example("secbeat jobs cancel 01JD2K"))
@with_session
def cancel_job(session: Session, job: Annotated[str, typer.Argument(help="Operation id, or its beginning.")]) -> None:
    """Ask the provisioner to end a job; what it has started is ended with it."""
    from secbeat.cli import resolving

    client = session.client
    record = client.post(*_API, "jobs", resolving.op_id(client, job, of="jobs"), "cancel")
    session.output.rows([record], views.jobs([record], session.now), empty="")


def _seconds(duration: str | None) -> float | None:
    return None if duration is None else parse_duration(duration)


def _body(**fields: object) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value is not None}


def _print_pool(session: Session, view: dict[str, Any]) -> None:
    session.output.rows([view], views.pools(session.now), empty="")


def _print_operation(session: Session, operation: dict[str, Any]) -> None:
    session.output.rows([operation], views.operations([operation], session.now), empty="")
