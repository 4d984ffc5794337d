"""Short ids: the beginning of an id, or a machine's name, as the one thing that it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from secbeat.cli.client import Client
from secbeat.cli.output import Row
from secbeat.errors import ConfigError

_API = ("api", "v1")


def node_id(client: Client, given: str) -> str:
    """The full node id of an id, a beginning of one, or a machine's name."""
    if len(given) == 36:
        return given
    rows = client.items(*_API, "nodes", all=1)
    named = {str(row["node_id"]) for row in rows if row.get("name") == given}
    return named.pop() if len(named) == 1 else _the_one("node", given.lower(), {str(row["node_id"]) for row in rows})


def op_id(client: Client, given: str, *, of: str = "operations") -> str:
    """The full id of an operation or, ``of="jobs"``, of a job."""
    if len(given) == 26:
        return given.upper()
    rows = client.items(*_API, of)
    return _the_one(of.removesuffix("s"), given.upper(), {str(row["op_id"]) for row in rows})


def _the_one(what: str, given: str, known: Iterable[str]) -> str:
    found = sorted(one for one in known if given and one.startswith(given))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError("NOT_FOUND", why=f"no {what} begins with {given!r}", fix=f"List what exists: secbeat {what}s")
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    raise ConfigError("ID_AMBIGUOUS", why=f"{given!r} begins {len(found)} {what} ids: {shown}")


def audit_event(rows: Sequence[Row], given: str) -> Row:
    """The event of the audit among ``rows`` that begins with ``given``."""
    known = {str(row["event_id"]): row for row in rows if row.get("event_id")}
    try:
        return known[_the_one("event", given.upper(), known)]
    except ConfigError as error:
        if error.code != "NOT_FOUND":
            raise
        why = f"no event {given!r} among the newest {len(rows)}"
        raise ConfigError("NOT_FOUND", why=why, fix="List them: secbeat audit --newest 1000") from None


def decision(rows: Sequence[Row], given: str) -> Row:
    """The newest decision of ``POOL`` or ``POOL@REVISION`` among ``rows``, which are oldest first."""
    pool, _, revision = given.partition("@")
    for row in reversed(rows):
        if row.get("pool") == pool and (not revision or str(row.get("revision")) == revision):
            return row
    raise ConfigError("NOT_FOUND", why=f"no decision {given!r} among the newest", fix="List them: secbeat decisions")
