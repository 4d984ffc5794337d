"""What may be worth a notification: states that last, found in a decision and a pool's record. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from secbeat.settings import NotificationKind
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.pools import PoolRecord


@dataclass(frozen=True, slots=True)
class Condition:
    """A state of a pool that lasts. ``since`` tells one from the next of its kind."""

    since: datetime
    code: str
    sentence: str


def conditions(decision: DecisionRecord, record: PoolRecord) -> Mapping[NotificationKind, Condition]:
    """The states that the pool is in now, at most one of each kind."""
    found: dict[NotificationKind, Condition] = {}
    codes = {clamp.code: clamp.sentence for clamp in decision.clamps}
    if "AT_MAX" in codes and decision.winner != "override":
        found["at_limit"] = Condition(decision.equal_since or decision.at, "AT_MAX", codes["AT_MAX"])
    breaker = record.breaker
    if breaker.open_since is not None:
        sentence = f"{breaker.failures} boots in a row never joined; the last: {breaker.last_error}"
        found["breaker_open"] = Condition(breaker.open_since, "BREAKER_OPEN", sentence)
    if record.frozen_since is not None:
        found["frozen"] = Condition(record.frozen_since, "MASS_SILENCE", "too many nodes are silent at once")
    if (pause := record.pause) is not None:
        until = f"until {pause.until:%Y-%m-%dT%H:%M:%SZ}" if pause.until is not None else "without an end"
        reason = f": {pause.reason}" if pause.reason else ""
        words = {"out": "growth", "in": "shrinking", "both": "growth and shrinking"}[pause.direction]
        sentence = f"{pause.by or 'an operator'} paused {words} {until}{reason}"
        found["paused"] = Condition(pause.since, f"PAUSED_{pause.direction.upper()}", sentence)
    return found
