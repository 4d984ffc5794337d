"""Log lines about failures that may come by the thousand: one each five seconds, with the number of those left out."""

from __future__ import annotations

import logging
import time

_INTERVAL = 5.0


class Complaints:
    """Warnings of one kind."""

    def __init__(self, log: logging.Logger, action: str) -> None:
        self._log, self._action = log, action
        self._next = 0.0
        self._unsaid = 0

    def __call__(self, message: str, *details: object) -> None:
        """Warn, unless that was done a moment ago."""
        now = time.monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        self._log.warning(message, *details, extra={"action": self._action, "unsaid_before": self._unsaid})
        self._next, self._unsaid = now + _INTERVAL, 0
