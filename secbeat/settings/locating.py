"""Turn a refused configuration into one sentence: which file and line (or variable), which key, what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from secbeat.errors import ConfigError
from secbeat.settings.model import PoolSettings, Settings
from secbeat.settings.tree import table_at

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)$")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def line_of(text: str, dotted: str) -> int | None:
    """The line that sets ``dotted``: tomllib keeps no positions, but headers and keys stand on lines of their own."""
    wanted = dotted.split(".")
    current: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            current = _parts(header[1])
            if current == wanted:
                return number
        elif assigned := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            full = [*current, *_parts(assigned[1])]
            # An inline table sets all its keys on its own line.
            inline = (
                len(full) < len(wanted) and wanted[: len(full)] == full and line.partition("=")[2].lstrip()[:1] == "{"
            )
            flat = not current and wanted[:1] == ["orchestrator"] and full == wanted[1:]
            if full == wanted or inline or flat:
                return number
    return None


def _parts(key: str) -> list[str]:
    return [part.strip().strip("\"'") for part in key.split(".")]


def explain(error: ValidationError, text: str, path: Path | None, sources: Mapping[str, str]) -> ConfigError:
    """The first of pydantic's findings as the error that a person reads.

    Args:
        error: what pydantic found.
        text: the file's text.
        path: the file, if there is one.
        sources: per dotted key where its value came from.
    """
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"] if not str(part).startswith(("function-", "["))]
    message = first["msg"].removeprefix("Value error, ")
    code = "SECRET_PLACEHOLDER" if "placeholder" in message else "CONFIG_INVALID"
    fix = None if code == "SECRET_PLACEHOLDER" else f"Mend it, then: secbeat config check {path or 'FILE'}"
    if first["type"] == "extra_forbidden":
        message, fix = _unknown(location, fix)
    elif first["type"] != "value_error":
        message = _with_hint(first, message)
    key = ".".join(_narrowed(location, message))
    where = _where(key, text, path, sources)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ConfigError(code, why=f"{where}: {key or 'file'}: {message}{more}", fix=fix, key=key)


def _unknown(location: list[str], fix: str | None) -> tuple[str, str | None]:
    table = table_at(location[:-1])
    fields = list(table.model_fields) if table is not None else []
    if known := get_close_matches(location[-1], fields, n=1):
        return f"unknown key (did you mean {known[0]}?)", fix
    homes = [name for name, field in Settings.model_fields.items() if location[-1] in _fields(field.annotation)]
    if homes:
        home = "pools.NAME" if homes[0] == "pools" else homes[0]
        return f"unknown key here (it belongs into [{home}])", fix
    return "unknown key", "Remove it; docs/reference/configuration lists every key"


def _fields(annotation: Any) -> list[str]:
    if annotation is not None and annotation == Settings.model_fields["pools"].annotation:
        return list(PoolSettings.model_fields)
    return list(getattr(annotation, "model_fields", {}))


def _with_hint(first: Any, message: str) -> str:
    """Add what the value probably meant: a percentage for a fraction, a duration with a unit for seconds."""
    value = first.get("input")
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return f"{message} (seconds as a number: {float(match[1]) * _UNIT_SECONDS[match[2]]:g}, not {value!r})"
    if isinstance(value, str) and value.endswith("%") and value[:-1].replace(".", "", 1).isdigit():
        return f"{message} (a fraction: {float(value[:-1]) / 100:g}, not {value!r})"
    at_most_one = first["type"] == "less_than_equal" and first.get("ctx", {}).get("le") == 1.0
    if at_most_one and isinstance(value, int | float) and 1 < value <= 100:
        return f"{message} (a fraction from 0 to 1: {value:g} % is {value / 100:g})"
    return message


def _narrowed(location: list[str], message: str) -> list[str]:
    """A finding about a whole table names its key first: ``min (5) is over max (3)`` is about ``min``."""
    if named := re.match(r"pools\.([\w-]+),", message):
        return ["pools", named[1]]
    table = table_at(location)
    subject = message.split(" ", 1)[0]
    if not location and subject in _fields(Settings.model_fields["orchestrator"].annotation):
        return ["orchestrator", subject]
    return [*location, subject] if table is not None and subject in table.model_fields else location


def _where(key: str, text: str, path: Path | None, sources: Mapping[str, str]) -> str:
    if key in sources:
        return sources[key]
    below = [source for known, source in sources.items() if known.startswith(f"{key}.")]
    if below and not below[0].startswith(str(path)):
        return below[0]
    line = line_of(text, key)
    return f"{path}:{line}" if line else str(path or "configuration")
