"""Every error and reason code, with cause and remedy: what ``secbeat explain`` prints, offline.

One module per area, each with a tuple ``ENTRIES``. Codes are UPPER_SNAKE and are never renamed or reused; the
contract's reason codes (``HIGH_FLEET_CPU_LOAD`` and the like) are entries as well.
"""

from __future__ import annotations

from secbeat.catalogue._entry import Entry
from secbeat.catalogue.api import ENTRIES as _API
from secbeat.catalogue.command import ENTRIES as _COMMAND
from secbeat.catalogue.instance import ENTRIES as _INSTANCE
from secbeat.catalogue.node import ENTRIES as _NODE
from secbeat.catalogue.operating import ENTRIES as _OPERATING
from secbeat.catalogue.provisioning import ENTRIES as _PROVISIONING
from secbeat.catalogue.scaling import ENTRIES as _SCALING
from secbeat.catalogue.setup import ENTRIES as _SETUP

_AREAS = (_SETUP, _API, _COMMAND, _INSTANCE, _SCALING, _OPERATING, _PROVISIONING, _NODE)
ALL: dict[str, Entry] = {entry.code: entry for area in _AREAS for entry in area}

FOREIGN: dict[str, str] = {
    "PREDICTED_HIGH_FLEET_CPU_LOAD": "an original orchestrator's reason for a scale-up; treated as HIGH_FLEET_CPU_LOAD",
}
"""Codes of other programs that are passed on as they come: known, and explained only by who sends them."""

__all__ = ["ALL", "FOREIGN", "Entry", "lookup"]


def lookup(code: str) -> Entry:
    """The entry of ``code``.

    Raises:
        KeyError: the code is not in the catalogue (a defect of the caller; a test walks all codes).
    """
    return ALL[code]
