"""Commands that only read: pools, nodes, operations, jobs, decisions, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secbeat.cli import views
from secbeat.cli.session import Session, example, with_session

_API = ("api", "v1")
PoolOption = Annotated[str | None, typer.Option("--pool", help="Only this pool.")]
NewestOption = Annotated[int, typer.Option("--newest", min=1, max=1000, help="So many of the newest.")]

pools = typer.Typer(invoke_without_command=True, help="The pools: size, policy, what holds them.")
nodes = typer.Typer(invoke_without_command=True, help="The nodes: state, load, last heartbeat.")
operations = typer.Typer(invoke_without_command=True, help="The intents to create or destroy a node.")
jobs = typer.Typer(invoke_without_command=True, help="What the provisioner runs: state, log, cancel.")
audit = typer.Typer(invoke_without_command=True, help="Who changed what, done or refused.")
decisions = typer.Typer(invoke_without_command=True, help="The resource manager's verdicts.")


@pools.callback(epilog=example("secbeat pools", "secbeat pools show web -o json"))
@with_session
def list_pools(session: Session, ctx: typer.Context) -> None:
    """List the pools: size, limits, load, what holds them, the last decision."""
    if ctx.invoked_subcommand is None:
        rows = session.client.items(*_API, "pools")
        session.output.rows(rows, views.pools(session.now), empty="There is no pool.")


@pools.command("show", epilog=example("secbeat pools show web"))
@with_session
def show_pool(session: Session, pool: Annotated[str, typer.Argument(help="Name of the pool.")]) -> None:
    """Show one pool with its policy."""
    found = session.client.get(*_API, "pools", pool)
    session.output.record(found, sentence=(found.get("decision") or {}).get("sentence"))


@nodes.callback(epilog=example("secbeat nodes --pool web", "secbeat nodes show 1f9c2a7e"))
@with_session
def list_nodes(
    session: Session,
    ctx: typer.Context,
    pool: PoolOption = None,
    all_nodes: Annotated[bool, typer.Option("--all", "-a", help="Also those not yet or no longer serving.")] = False,
) -> None:
    """List the nodes: state, load, last heartbeat."""
    if ctx.invoked_subcommand is None:
        rows = session.client.items(*_API, "nodes", pool=pool, all=1 if all_nodes else None)
        session.output.rows(rows, views.nodes(rows, session.now), empty="There is no node.")


@nodes.command("show", epilog=example("secbeat nodes show 1f9c2a7e -o yaml"))
@with_session
def show_node(session: Session, node: Annotated[str, typer.Argument(help="Id, beginning of it, or name.")]) -> None:
    """Show one node."""
    from secbeat.cli import resolving

    session.output.record(session.client.get(*_API, "nodes", resolving.node_id(session.client, node)))


@nodes.command("new", epilog=example("secbeat nodes new --pool web --join-file join.json"))
@with_session
def new_node(
    session: Session,
    pool: Annotated[str, typer.Option("--pool", help="Pool that the node will belong to.")],
    join_file: Annotated[Path, typer.Option("--join-file", help="Where to write the join secret; must not exist.")],
) -> None:
    """Admit a node that you start by hand.

    Its one-use join secret is written to a file of mode 0600.
    """
    from secbeat.cli.secret_files import reserved

    with reserved(join_file) as write:
        answer = session.client.post(*_API, "pools", pool, "nodes")
        write(answer)
    shown = {key: value for key, value in answer.items() if key != "secret"} | {"join_file": str(join_file)}
    until = answer.get("expires_at")
    sentence = f"{join_file} admits one node, once, until {until}: name it as [node] join_file and start the node"
    session.output.record(shown, sentence=sentence)


@operations.callback(epilog=example("secbeat operations --open", "secbeat operations show 01JD2K"))
@with_session
def list_operations(
    session: Session,
    ctx: typer.Context,
    pool: PoolOption = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that have not ended.")] = False,
) -> None:
    """List the operations, each an intent to create or destroy one node."""
    if ctx.invoked_subcommand is None:
        rows = session.client.items(*_API, "operations", pool=pool, open=1 if only_open else None)
        session.output.rows(rows, views.operations(rows, session.now), empty="There is no operation.")


@operations.command("show", epilog=example("secbeat operations show 01JD2K"))
@with_session
def show_operation(
    session: Session, operation: Annotated[str, typer.Argument(help="Id of the operation, or its beginning.")]
) -> None:
    """Show one operation."""
    from secbeat.cli import resolving

    found = session.client.get(*_API, "operations", resolving.op_id(session.client, operation))
    session.output.record(found, sentence=views.failure(found) or None)


@jobs.callback(epilog=example("secbeat jobs", "secbeat jobs log 01JD2K -f"))
@with_session
def list_jobs(session: Session, ctx: typer.Context) -> None:
    """List the provisioner's jobs, as their records say."""
    if ctx.invoked_subcommand is None:
        rows = session.client.items(*_API, "jobs")
        session.output.rows(rows, views.jobs(rows, session.now), empty="There is no job.")


@jobs.command("show", epilog=example("secbeat jobs show 01JD2K"))
@with_session
def show_job(session: Session, job: Annotated[str, typer.Argument(help="Operation id, or its beginning.")]) -> None:
    """Show one job: state, progress, why it failed."""
    from secbeat.cli import resolving

    found = session.client.get(*_API, "jobs", resolving.op_id(session.client, job, of="jobs"))
    session.output.record(found, sentence=views.failure(found) or None)


@decisions.callback(epilog=example("secbeat decisions --pool web", "secbeat decisions show web@1234"))
@with_session
def list_decisions(
    session: Session,
    ctx: typer.Context,
    *,
    pool: PoolOption = None,
    newest: NewestOption = 50,
    every: Annotated[bool, typer.Option("--every", help="Each evaluation; else equal ones in a row are one.")] = False,
) -> None:
    """List the newest decisions, the newest last."""
    if ctx.invoked_subcommand is None:
        rows = session.client.items(*_API, "decisions", pool=pool, newest=newest if every else 1000)
        rows = rows if every else views.runs(rows)[-newest:]
        session.output.rows(rows, views.decisions(session.now), empty="There is no decision yet.")


@decisions.command("show", epilog=example("secbeat decisions show web", "secbeat decisions show web@1234"))
@with_session
def show_decision(
    session: Session, decision: Annotated[str, typer.Argument(help="POOL (its newest) or POOL@REVISION.")]
) -> None:
    """Show one decision with everything that it saw."""
    from secbeat.cli import resolving

    rows = session.client.items(*_API, "decisions", pool=decision.partition("@")[0], newest=1000)
    found = resolving.decision(rows, decision)
    session.output.record(found, sentence=found.get("sentence"))


@audit.callback(epilog=example("secbeat audit --newest 20", "secbeat audit show 01JD2K"))
@with_session
def list_audit(session: Session, ctx: typer.Context, newest: NewestOption = 50) -> None:
    """List who changed what, the newest last."""
    if ctx.invoked_subcommand is None:
        rows = session.client.items(*_API, "audit", newest=newest)
        session.output.rows(rows, views.audit(rows, session.now), empty="Nothing was changed by hand yet.")


@audit.command("show", epilog=example("secbeat audit show 01JD2K"))
@with_session
def show_audit(
    session: Session, event: Annotated[str, typer.Argument(help="Id of the event, or its beginning.")]
) -> None:
    """Show one change: who, what, before, after, result."""
    from secbeat.cli import resolving

    found = resolving.audit_event(session.client.items(*_API, "audit", newest=1000), event)
    result = "done" if found.get("status", 0) < 400 else "refused"
    session.output.record(found, sentence=f"{found['who']}: {found['what']}: {result} ({found['status']})")
