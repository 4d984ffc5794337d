"""What ``secbeat scale`` is about to do, told before it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from secbeat.errors import RefusedError


def plan(view: Mapping[str, Any], size: int, seconds: float | None, now: datetime) -> dict[str, Any]:
    """What setting the pool of ``view`` to ``size`` amounts to, as data.

    Raises:
        RefusedError: the pool's limits do not allow that size (SIZE_OUT_OF_RANGE).
    """
    low, high = view["min"], view["max"]
    if not low <= size <= high:
        raise RefusedError("SIZE_OUT_OF_RANGE", why=f"{size} is not within min {low} and max {high}")
    change = size - view["capacity"]
    return {
        "pool": view["name"],
        "revision": view["revision"],
        "from": view["capacity"],
        "to": size,
        "create": max(change, 0),
        "remove": max(-change, 0),
        "nodes": _leavers(view, -change),
        "until": None if seconds is None else f"{now + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}",
        "held_by": _held(view, change),
    }


def check_revision(view: Mapping[str, Any], wanted: int | None) -> None:
    """Refuse what was planned for another state of the pool, as the service would.

    Raises:
        RefusedError: CHANGED_MEANWHILE.
    """
    if wanted not in {None, view["revision"]}:
        why = f"pool {view['name']} is at revision {view['revision']}, you saw {wanted}"
        raise RefusedError("CHANGED_MEANWHILE", why=why)


def _leavers(view: Mapping[str, Any], many: int) -> list[str]:
    """The nodes that would leave, as far as the last evaluation saw them."""
    seen = ((view.get("decision") or {}).get("snapshot") or {}).get("candidates") or []
    fit = [one["node_id"] for one in seen if one.get("blocked_by") in {None, "WARMING_UP"}]
    return fit[:many] if many > 0 else []


def _held(view: Mapping[str, Any], change: int) -> str | None:
    if view.get("mode") == "observe":
        return "OBSERVE_MODE"
    direction = (view.get("pause") or {}).get("direction")
    if change > 0 and direction in {"out", "both"}:
        return "PAUSED_OUT"
    return "PAUSED_IN" if change < 0 and direction in {"in", "both"} else None


def lines(made: Mapping[str, Any]) -> Iterator[str]:
    """The plan in words."""
    until = made["until"] or "'secbeat resume' ends it"
    if made["create"]:
        what = f"creates {made['create']}"
    elif made["remove"]:
        named = ", ".join(node_id[:8] for node_id in made["nodes"])
        what = f"removes {made['remove']}" + (f" ({named} as things are)" if named else "")
    else:
        what = "changes nothing now"
    yield (
        f"plan: pool {made['pool']} from {made['from']} to {made['to']}: {what}; held until {until}; "
        f"revision {made['revision']}"
    )
    if made["held_by"]:
        yield f"plan: nothing happens while {made['held_by']} holds the pool: secbeat why {made['pool']}"
