"""What a reload changes: SIGHUP applies live keys and says of the others that they want a restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from secbeat.settings.model import Settings
from secbeat.settings.tree import find, leaves


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose effective value differs; ``old`` or ``new`` is None where its table came or went."""

    key: str
    reload: Literal["live", "restart"]
    old: Any
    new: Any


def compare(old: Settings, new: Settings) -> Sequence[Change]:
    """The keys that differ between two settings, in the order of the model."""
    before, after = dict(leaves(old)), dict(leaves(new))
    found = []
    for dotted in dict.fromkeys([*before, *after]):
        one, two = before.get(dotted), after.get(dotted)
        if one != two:
            key = find(dotted)
            found.append(Change(dotted, "restart" if key is None else key.reload, one, two))
    return found
