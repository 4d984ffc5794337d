"""What a check reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor. ``remedy`` is empty exactly when nothing is to be done.

    ``warn``: works, with a limit that one should know. ``skip``: could not or need not be checked here.
    """

    group: str
    name: str
    status: Status
    detail: str
    remedy: str = ""
