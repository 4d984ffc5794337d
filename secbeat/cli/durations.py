"""Durations and points in time as people type and read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from secbeat.errors import ConfigError

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")
_LONGEST = 365 * 86400


def parse_duration(text: str) -> float:
    """Seconds of ``90s``, ``5m``, ``2h``, ``1d`` or ``1h30m``.

    Raises:
        ConfigError: DURATION_INVALID; zero and more than a year are refused as well.
    """
    if not _WHOLE.fullmatch(text):
        raise ConfigError("DURATION_INVALID", why=f"{text!r} is not a number with a unit (s, m, h, d)")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 < seconds <= _LONGEST:
        raise ConfigError("DURATION_INVALID", why=f"{text!r} is outside 1 s to 365 days")
    return seconds


def parse_moment(text: str, now: datetime) -> datetime:
    """The time that ``text`` names: RFC 3339, or a duration that means so long before ``now``.

    Raises:
        ConfigError: TIME_INVALID.
    """
    if _WHOLE.fullmatch(text):
        return now - timedelta(seconds=parse_duration(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("TIME_INVALID", why=f"{text!r} is neither a time nor a duration") from None
    return moment.astimezone(UTC)  # a time without a zone is the machine's local time


def format_seconds(seconds: float) -> str:
    """Two units at most: ``0.4s``, ``45s``, ``3m12s``, ``2h05m``, ``3d04h``."""
    if seconds < 0:
        return f"-{format_seconds(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f}s".replace(".0s", "s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def age(stamp: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 time was; ``-`` for none, the text itself if it is no time."""
    if not stamp:
        return "-"
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return format_seconds(max(0.0, (now - moment).total_seconds()))
