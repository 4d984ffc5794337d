"""Notifications: a signed webhook for what a person should know, once when it begins and once when it is over."""

from __future__ import annotations

from orchestrator.notifying.notifier import Notifier
from orchestrator.notifying.opening import open_notifier, signing_secret
from orchestrator.notifying.posting import HttpPoster, Poster

__all__ = ["HttpPoster", "Notifier", "Poster", "open_notifier", "signing_secret"]
