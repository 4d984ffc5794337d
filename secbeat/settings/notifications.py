"""``[notifications]``: who is told, and of what."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from secbeat.settings.fields import Table, restart

NotificationKind = Literal[
    "at_limit", "breaker_open", "frozen", "paused", "operation_failed", "needs_operator", "node_failed"
]


class NotificationsSettings(Table):
    """``[notifications]``. A signed webhook (Standard Webhooks) when something begins that a person should know."""

    url: str | None = restart(
        None, pattern=r"^https?://[^\s@]+$", description="Receiver, POST. Unset: nobody is notified."
    )
    secret_file: Path | None = restart(None, description="File with the whsec_… secret that signs each message.")
    kinds: list[NotificationKind] = restart(
        ["at_limit", "breaker_open", "frozen", "paused", "needs_operator"],
        description="What is told: lasting states when they begin and when they are over, failures each once.",
    )
    timeout_seconds: float = restart(10.0, gt=0, le=60, description="One attempt's time limit.")

    @model_validator(mode="after")
    def _signed(self) -> Self:
        if self.url is not None and self.secret_file is None:
            raise ValueError("url needs secret_file: a message without a signature could come from anybody")
        return self
