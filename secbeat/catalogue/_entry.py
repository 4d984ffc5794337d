"""The shape of a catalogue entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Entry:
    """One code: what it means (title), how one gets there (cause), what to do (remedy)."""

    code: str
    kind: Literal["error", "reason"]
    title: str
    cause: str
    remedy: str
