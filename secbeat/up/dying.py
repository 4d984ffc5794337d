"""What a service said when it could not start, as the error of the command that started it: once, in one wording."""

from __future__ import annotations

import re

from secbeat import catalogue
from secbeat.errors import ConfigError, SecbeatError
from secbeat.up.children import Child, how_it_ended

_HEAD = re.compile(r"error\[([A-Z0-9_]+)\]: ")
_WHY, _FIX, _MORE = "  why:  ", "  fix:  ", "  more: "


def is_error_line(line: str) -> bool:
    """Whether the line is part of an error as every service prints it before it ends."""
    return bool(_HEAD.match(line)) or line.startswith((_WHY, _FIX, _MORE))


def died(child: Child, code: int) -> SecbeatError:
    """The error of a service that has ended with ``code``: its own, with its name; else its last words."""
    kind = ConfigError if code == ConfigError.exit_code else SecbeatError
    words = child.last_words()
    head = _HEAD.match(words[0]) if words else None
    why, fix = _after(words, _WHY), _after(words, _FIX)
    if head is not None and head[1] in catalogue.ALL and why and fix:
        return kind(head[1], why=f"{child.name}: {why}", fix=fix)
    said = "; ".join(line.strip() for line in words) or "it said nothing"
    return kind("SERVICE_DIED", why=f"{child.name} ended ({how_it_ended(code)}): {said}")


def _after(words: list[str], prefix: str) -> str:
    return next((line.removeprefix(prefix) for line in words if line.startswith(prefix)), "")
