"""How the API's objects look as rows: the columns of every table, and the shortest ids that are still unique."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from secbeat.cli.durations import age, format_seconds
from secbeat.cli.output import Column, Row

_SHORTEST = 8


def shortener(ids: Iterable[str]) -> Callable[[str | None], str]:
    """A function that cuts ids to the shortest length, at least 8, at which all of ``ids`` still differ."""
    known = {one for one in ids if one}
    longest = max(map(len, known), default=0)
    length = min(_SHORTEST, longest)
    while length < longest and len({one[:length] for one in known}) < len(known):
        length += 1
    return lambda one: "-" if not one else one[: max(length, _SHORTEST)]


def percent(fraction: object) -> str:
    """``42%``; ``-`` for none."""
    return f"{fraction * 100:.0f}%" if isinstance(fraction, int | float) else "-"


def _key(name: str) -> Callable[[Row], object]:
    return lambda row: row.get(name)


def _age(name: str, now: datetime) -> Callable[[Row], object]:
    return lambda row: age(row.get(name), now)


def pools(now: datetime) -> list[Column]:
    """Columns of ``secbeat pools``."""
    return [
        Column("POOL", _key("name")),
        Column("SIZE", lambda row: f"{row.get('active')}/{row.get('desired')}", right=True),
        Column("MIN", _key("min"), right=True),
        Column("MAX", _key("max"), right=True),
        Column("PENDING", _key("pending"), right=True),
        Column("DRAINING", _key("draining"), right=True),
        Column("FAILED", _key("failed"), right=True),
        Column("CPU", lambda row: percent(row.get("cpu")), right=True),
        Column("HOLD", lambda row: hold(row, now)),
        Column("LAST DECISION", lambda row: (row.get("decision") or {}).get("sentence")),
    ]


def hold(pool: Row, now: datetime) -> str:
    """Everything that keeps the loop of a pool from acting freely, in a few words."""
    words = []
    if pool.get("mode") == "observe":
        words.append("observe")
    if pool.get("retired"):
        words.append("retired")
    if pool.get("frozen_since"):
        words.append(f"frozen {age(pool['frozen_since'], now)}")
    if (pool.get("breaker") or {}).get("open_since"):
        words.append("breaker open")
    if pause := pool.get("pause"):
        words.append(f"paused {pause.get('direction')}{_left(pause.get('until'), now)}")
    if override := pool.get("override"):
        words.append(f"size {override.get('size')}{_left(override.get('until'), now)}")
    return ", ".join(words)


def _left(until: str | None, now: datetime) -> str:
    if not until:
        return ""
    try:
        return f" {format_seconds(max(0.0, (datetime.fromisoformat(until) - now).total_seconds()))} left"
    except (TypeError, ValueError):
        return f" until {until}"


def nodes(rows: Sequence[Row], now: datetime) -> list[Column]:
    """Columns of ``secbeat nodes``."""
    short = shortener(str(row.get("node_id", "")) for row in rows)
    return [
        Column("NODE", lambda row: short(row.get("node_id"))),
        Column("POOL", _key("pool")),
        Column("STATE", _key("state")),
        Column("FOR", _age("state_since", now), right=True),
        Column("CPU", lambda row: percent(row.get("cpu")), right=True),
        Column("CONN", lambda row: (row.get("metrics") or {}).get("active_connections"), right=True),
        Column("RPS", lambda row: _number(row.get("rps")), right=True),
        Column("HEARTBEAT", _age("last_heartbeat", now), right=True),
        Column("ADDRESS", _address),
        Column("NAME", _key("name")),
        Column("NOTES", _notes),
    ]


def _number(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "-"


def _address(row: Row) -> str:
    address = row.get("address") or row.get("public_ip")
    return f"{address}:{row['proxy_port']}" if row.get("proxy_port") else str(address or "-")


def _notes(row: Row) -> str:
    return ", ".join(word for word in ("protected", "legacy", "silent") if row.get(word))


def kept(rows: Sequence[Row]) -> list[Column]:
    """Columns of ``secbeat why POOL --nodes``."""
    short = shortener(str(row.get("node_id", "")) for row in rows)
    return [
        Column("NODE", lambda row: short(row.get("node_id"))),
        Column("STATE", _key("state")),
        Column("KEPT BY", lambda row: ", ".join(row.get("blocked_by") or ())),
        Column("LEAVES", _key("leaves")),
        Column("WHY", _key("sentence")),
    ]


def operations(rows: Sequence[Row], now: datetime) -> list[Column]:
    """Columns of ``secbeat operations``."""
    short = shortener(str(row.get("op_id", "")) for row in rows)
    node = shortener(str(row.get("node_id", "")) for row in rows)
    return [
        Column("OPERATION", lambda row: short(row.get("op_id"))),
        Column("ACTION", _key("action")),
        Column("POOL", _key("pool")),
        Column("NODE", lambda row: node(row.get("node_id"))),
        Column("STATE", _key("state")),
        Column("AGE", _age("created_at", now), right=True),
        Column("TRIES", _tries, right=True),
        Column("BY", _key("requested_by")),
        Column("REASON", _key("reason")),
        Column("DETAIL", lambda row: failure(row) or row.get("stage")),
    ]


def _tries(row: Row) -> object:
    """Calls of receiver and node in all; a record of an older version has those of its last step only."""
    return row.get("calls") or row.get("attempts")


def jobs(rows: Sequence[Row], now: datetime) -> list[Column]:
    """Columns of ``secbeat jobs``."""
    short = shortener(str(row.get("op_id", "")) for row in rows)
    node = shortener(str(row.get("node_id", "")) for row in rows)
    return [
        Column("JOB", lambda row: short(row.get("op_id"))),
        Column("ACTION", _key("action")),
        Column("POOL", _key("pool")),
        Column("NODE", lambda row: node(row.get("node_id"))),
        Column("STATE", _key("state")),
        Column("AGE", _age("created_at", now), right=True),
        Column("TOOK", lambda row: _took(row, now), right=True),
        Column("ENGINE", _key("engine")),
        Column("DETAIL", lambda row: failure(row) or (row.get("progress") or {}).get("stage")),
    ]


def _took(row: Row, now: datetime) -> str:
    if not row.get("started_at"):
        return "-"
    end = row.get("finished_at")
    try:
        return age(row["started_at"], datetime.fromisoformat(end) if end else now)
    except (TypeError, ValueError):
        return "-"


def failure(row: Row) -> str:
    """Why an operation or a job failed or waits: code, sentence, and the task if the sentence does not name it."""
    error: Any = row.get("error")
    if not isinstance(error, dict):
        return ""
    task, message = error.get("task"), str(error.get("message"))
    return f"{error.get('code')}: {message}" + (f" (task '{task}')" if task and task not in message else "")


def runs(rows: Sequence[Row]) -> list[Row]:
    """Of equal decisions in a row the last, which counts them; ``rows`` and the result are oldest first."""
    begun: dict[object, object] = {}
    kept = []
    for row in reversed(rows):
        pool, start = row.get("pool"), row.get("equal_since") or row.get("at")
        if begun.get(pool) != start:
            kept.append(row)
        begun[pool] = start
    return kept[::-1]


def decisions(now: datetime) -> list[Column]:
    """Columns of ``secbeat decisions``."""
    return [
        Column("DECISION", decision_id),
        Column("AGE", _age("at", now), right=True),
        Column("VERDICT", _verdict),
        Column("NODES", lambda row: f"{row.get('capacity')}→{row.get('desired')}", right=True),
        Column("CPU", lambda row: percent((row.get("snapshot") or {}).get("cpu")), right=True),
        Column("TIMES", _key("equal_count"), right=True),
        Column("CODE", _key("code")),
        Column("SENTENCE", _key("sentence")),
    ]


def decision_id(row: Row) -> str:
    """``POOL@REVISION``: what ``secbeat decisions show`` takes."""
    return f"{row.get('pool')}@{row.get('revision')}"


def _verdict(row: Row) -> str:
    size = row.get("size") or 0
    word = f"{row.get('direction')} {size}" if size else str(row.get("direction"))
    return f"would {word}" if row.get("would") else word


def audit(rows: Sequence[Row], now: datetime) -> list[Column]:
    """Columns of ``secbeat audit``."""
    short = shortener(str(row.get("event_id", "")) for row in rows)
    return [
        Column("EVENT", lambda row: short(row.get("event_id"))),
        Column("AGE", _age("at", now), right=True),
        Column("WHO", _key("who")),
        Column("SCOPE", _key("scope")),
        Column("FROM", _key("peer")),
        Column("STATUS", _key("status"), right=True),
        Column("WHAT", _key("what")),
    ]


def event_line(event: Row) -> str:
    """One event as one line."""
    parts = [event.get("at"), event.get("kind"), event.get("pool"), event.get("sentence")]
    return "  ".join(str(part) for part in parts if part)
