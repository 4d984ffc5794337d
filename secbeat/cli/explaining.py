"""Commands that answer "why" and "what does this mean"."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from secbeat import catalogue
from secbeat.cli.output import Column, Format, Output
from secbeat.cli.session import OutputOption, Session, with_session
from secbeat.errors import ConfigError

_API = ("api", "v1")
_NODES_AT_MOST = 200


@with_session
def why(
    session: Session,
    thing: Annotated[str, typer.Argument(metavar="POOL|NODE", help="A pool, or a node's id, beginning or name.")],
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="Then: RFC 3339, or '15m' ago.")] = None,
    nodes: Annotated[bool, typer.Option("--nodes", help="Of a pool: what keeps each of its nodes.")] = False,
) -> None:
    """Say why a pool has its size, or why a node still runs.

    The sentence first, then the numbers that were seen and every limit that applied.
    """
    from secbeat.clock import wire_time

    if nodes:
        if at is not None:
            raise ConfigError("USAGE", why="--nodes shows what keeps them now, so --at cannot go with it")
        _each_node(session, thing)
        return
    moment = None
    if at is not None:
        from secbeat.cli.durations import parse_moment

        moment = wire_time(parse_moment(at, datetime.now(UTC)))
    found = _pool(session.client, thing, moment)
    if found is not None:
        session.output.text(_pool_lines(found, session.now), found)
        return
    if at is not None:
        raise ConfigError("USAGE", why=f"--at is for pools, and there is no pool {thing!r}")
    from secbeat.cli import resolving

    try:
        node_id = resolving.node_id(session.client, thing)
    except ConfigError as error:
        if error.code != "NOT_FOUND":
            raise
        why = f"there is no pool {thing!r}, and no node begins with it"
        raise ConfigError("NOT_FOUND", why=why, fix="List what exists: secbeat pools, secbeat nodes") from None
    node = session.client.get(*_API, "nodes", node_id, "why")
    session.output.text(_node_lines(node), node)


def _each_node(session: Session, pool: str) -> None:
    from secbeat.cli import views
    from secbeat.cli.output import note

    known = session.client.items(*_API, "nodes", pool=pool, all=1)
    rows = [session.client.get(*_API, "nodes", row["node_id"], "why") for row in known[:_NODES_AT_MOST]]
    if len(known) > len(rows):
        note(f"The first {len(rows)} of {len(known)} nodes; one by its id: secbeat why NODE")
    session.output.rows(rows, views.kept(rows), empty=f"Pool {pool} has no node.")


def _pool(client: Any, name: str, at: str | None) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.get(*_API, "pools", name, "why", at=at)
    except ConfigError as error:
        if error.status == 404 and (at is None or not _has_pool(client, name)):
            return None
        raise
    return found


def _has_pool(client: Any, name: str) -> bool:
    return any(row.get("name") == name for row in client.items(*_API, "pools"))


def _pool_lines(found: dict[str, Any], now: datetime) -> list[str]:
    from secbeat.cli.output import clean

    lines = [f"{found['name']}: {found['sentence']}"]
    if found.get("fix"):
        lines.append(f"  fix:       {found['fix']}")
    decision = found.get("decision")
    if decision:
        lines += _decision_lines(decision, now)
    if code := found.get("code") or (decision or {}).get("code"):
        lines.append(f"  more:      secbeat explain {code}")
    return [clean(line) for line in lines]


def _decision_lines(decision: dict[str, Any], now: datetime) -> list[str]:
    """The numbers behind a decision: what was seen, what each trigger made of it, what the limits left."""
    from secbeat.cli.durations import age
    from secbeat.cli.views import decision_id, percent

    seen = decision.get("snapshot") or {}
    counts = ("active", "pending", "draining", "failed", "silent", "warming", "fresh")
    seen_nodes = ", ".join(f"{seen.get(key, 0)} {key}" for key in counts)
    connections = f"{seen.get('connections', 0)} connections"
    would = "would be " if decision.get("would") else ""
    size = f"{would}{decision['direction']} {decision.get('size') or ''}".strip()
    policy = f", policy {decision['policy']}" if decision.get("policy") else ""
    when, asked = f"{age(decision.get('at'), now)} ago", _wanted(decision)
    serve = f"{decision.get('actual', seen.get('active', 0))} serve now"
    lines = [
        f"  decision:  {decision['code']}, {size}, {when}, {_times(decision)} ({decision_id(decision)}{policy})",
        f"  nodes:     from {decision.get('capacity')} to {decision.get('desired')}{asked}, {serve}; {seen_nodes}",
        f"  load:      cpu {percent(seen.get('cpu'))}, memory {percent(seen.get('memory'))}, {connections}",
        f"  checks:    {decision.get('up_checks', 0)} above, {decision.get('down_checks', 0)} below",
    ]
    winner = decision.get("winner")
    lines += [f"  trigger:   {_trigger(one, winner)}" for one in decision.get("triggers") or ()]
    lines += [f"  clamp:     {clamp['code']}: {clamp['sentence']}" for clamp in decision.get("clamps") or ()]
    return lines


def _wanted(decision: dict[str, Any]) -> str:
    wanted = decision.get("wanted")
    return "" if wanted is None else f" ({decision.get('winner')} asks for {wanted})"


def _trigger(one: dict[str, Any], winner: str | None) -> str:
    from secbeat.cli.views import percent

    name = one["name"]
    if name.endswith("_cpu"):
        sign = ">" if name == "high_cpu" else "<"
        measured = f"cpu {percent(one.get('value'))} {sign} {percent(one.get('limit'))}"
    else:
        measured = f"{one.get('value') or 0:.0f}, limit {one.get('limit') or 0:.0f}"
    if not one.get("met"):
        return f"{name}: {measured}: no"
    asks = "" if one.get("size") is None else f", asks for {one['size']}"
    formula = f" = {one['formula']}" if one.get("formula") else ""
    wins = " (decides)" if name == winner else ""
    return f"{name}: {measured}: yes, check {one.get('checks', 1)} of {one.get('needed', 1)}{asks}{formula}{wins}"


def _times(decision: dict[str, Any]) -> str:
    count = decision.get("equal_count", 1)
    return "once" if count == 1 else f"the same {count} times"


def _node_lines(found: dict[str, Any]) -> list[str]:
    from secbeat.cli.output import clean

    blocked = ", ".join(found.get("blocked_by") or ()) or "nothing"
    lines = [
        f"{found['node_id']}: {found['sentence']}",
        f"  pool:      {found['pool']}",
        f"  state:     {found['state']}",
        f"  kept by:   {blocked}",
    ]
    if found.get("leaves"):
        lines.append(f"  leaves:    {found['leaves']}")
    if found.get("fix"):
        lines.append(f"  fix:       {found['fix']}")
    return [clean(line) for line in lines]


def explain(
    code: Annotated[str | None, typer.Argument(help="Code of an error or a decision; none: list them all.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Say what a code means and what to do; works offline."""
    printer = Output(output)
    if code is None:
        columns = [Column(name.upper(), lambda row, name=name: row[name]) for name in ("code", "kind", "title")]  # type: ignore[misc]
        rows = [_entry(entry) for entry in sorted(catalogue.ALL.values(), key=lambda entry: entry.code)]
        printer.rows(rows, columns, empty="")
        return
    wanted = code.upper().replace("-", "_")
    from secbeat.catalogue.reference import anchor

    found = catalogue.ALL.get(wanted)
    if wanted in catalogue.FOREIGN:
        raise ConfigError("CODE_UNDOCUMENTED", why=f"{wanted}: {catalogue.FOREIGN[wanted]}")
    if found is None:
        near = get_close_matches(wanted, catalogue.ALL, n=3, cutoff=0.5)
        fix = f"Did you mean: {', '.join(near)}" if near else None
        raise ConfigError("UNKNOWN_CODE", why=f"{code[:64]!r} is not in the catalogue of this version", fix=fix)
    lines = [f"{found.code}: {found.title}", "", f"  {found.cause}", "", f"  fix:  {found.remedy}"]
    lines.append(f"  docs: {anchor(found.code)}")
    printer.text(lines, _entry(found))


def _entry(entry: catalogue.Entry) -> dict[str, str]:
    from secbeat.catalogue.reference import anchor

    return {
        "code": entry.code,
        "kind": entry.kind,
        "title": entry.title,
        "cause": entry.cause,
        "remedy": entry.remedy,
        "docs": anchor(entry.code),
    }
