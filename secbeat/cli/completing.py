"""Completion in the shell with what exists now: pools, nodes, operations, jobs from the API, codes from the catalogue.

Attached to the parameters by their names, and only when a shell asks: no other run pays for it. A person is typing, so
an answer comes within 0.3 s or not at all, and nothing that goes wrong is ever printed into the line.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

LIMIT_SECONDS = 0.3
_MOST = 200
_API = ("api", "v1")


@dataclass(frozen=True, slots=True)
class Item:
    """One proposal, with the attributes that every shell's formatter reads."""

    value: str
    help: str | None = None
    type: str = "plain"


Complete = Callable[[Any, str], list[Item]]


def plain_help() -> None:
    """Our help is plain text: without this, Typer imports Rich, which costs more than all else, to find that out."""
    from typer import _completion_classes as shells

    if hasattr(shells, "_sanitize_help_text"):
        shells._sanitize_help_text = _as_it_is  # noqa: SLF001 - there is no public way


def _as_it_is(text: str) -> str:
    return text


def attach(command: Any, *, path: tuple[str, ...] = ()) -> None:
    """Give every parameter of ``command`` and of what is below it that names something live its completion."""
    for parameter in command.params:
        kind = _kind(parameter.name, path)
        if kind is not None:
            parameter.shell_complete = partial(_proposals, kind)
    for name, inner in getattr(command, "commands", {}).items():
        attach(inner, path=(*path, name))


def _kind(parameter: str, path: tuple[str, ...]) -> str | None:
    if parameter in {"pool", "node", "operation", "job", "code"}:
        return parameter
    if parameter == "decision":
        return "pool"
    return "target" if path == ("why",) and parameter == "thing" else None


def _proposals(kind: str, ctx: Any, incomplete: str) -> list[Item]:
    try:
        if kind == "code":
            return _matching(_codes(), incomplete.upper())
        with _within(LIMIT_SECONDS):
            return list(_LIVE[kind](_client(ctx), incomplete))
    except Exception:  # noqa: BLE001 - the service is unreachable, slow, or refuses: then there is nothing to propose
        return []


def _client(ctx: Any) -> Any:
    """As the command itself would find it: what was typed before counts."""
    from secbeat.cli.client import Client
    from secbeat.cli.finding import find

    given = ctx.params
    return Client(
        find("orchestrator", url=given.get("url"), token_file=given.get("token_file"), state=given.get("state"))
    )


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError after so long, wherever the time went: resolving, connecting, reading, parsing."""

    def over(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _pools(client: Any, incomplete: str) -> list[Item]:
    rows = client.items(*_API, "pools")
    found = [
        Item(str(row["name"]), f"{row.get('active')} active, {row.get('min')} to {row.get('max')}") for row in rows
    ]
    return _matching(found, incomplete)


def _nodes(client: Any, incomplete: str) -> list[Item]:
    """By machine name; by id for who has begun to type one."""
    rows = client.items(*_API, "nodes", all=1, limit=1000)
    names = [Item(str(row["name"]), f"{row.get('state')}, {row['node_id']}") for row in rows if row.get("name")]
    by_id = [Item(str(row["node_id"]), f"{row.get('state')}, {row.get('name')}") for row in rows]
    found = _matching(names, incomplete)
    nameless = [item for item, row in zip(by_id, rows, strict=True) if not row.get("name")]
    return found + _matching(by_id if incomplete and not found else nameless, incomplete.lower())


def _work(which: str, client: Any, incomplete: str) -> list[Item]:
    """Operations or jobs, the newest first."""
    rows = client.items(*_API, which, limit=1000)
    found = [
        Item(str(row["op_id"]), f"{row.get('action')} {row.get('pool')}: {row.get('state')}")
        for row in sorted(rows, key=lambda row: str(row["op_id"]), reverse=True)
    ]
    return _matching(found, incomplete.upper())


def _target(client: Any, incomplete: str) -> list[Item]:
    return _pools(client, incomplete) + _nodes(client, incomplete)


def _codes() -> Iterable[Item]:
    from secbeat import catalogue

    return [Item(code, catalogue.ALL[code].title) for code in sorted(catalogue.ALL)]


def _matching(items: Iterable[Item], beginning: str) -> list[Item]:
    return [item for item in items if item.value.startswith(beginning)][:_MOST]


_LIVE: dict[str, Complete] = {
    "pool": _pools,
    "node": _nodes,
    "operation": partial(_work, "operations"),
    "job": partial(_work, "jobs"),
    "target": _target,
}
