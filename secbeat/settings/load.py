"""Read the file, lay environment and flags over it, validate, remember where each value came from."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from secbeat.errors import ConfigError
from secbeat.settings.model import OrchestratorSettings, Settings

_PREFIX = "SECBEAT_"
_TABLES = ("orchestrator", "pools", "provisioner", "blueprints", "node", "management", "nats")
# What clients of the API read from the environment; not settings.
_CLIENT_VARIABLES = {"SECBEAT_URL", "SECBEAT_TOKEN_FILE", "SECBEAT_STATE", "SECBEAT_CONFIG"}


@dataclass(frozen=True)
class Loaded:
    """Validated settings; per dotted key that is not a default, its source (``file:LINE``, ``env NAME``, ``flag``)."""

    settings: Settings
    sources: Mapping[str, str]
    path: Path | None


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Loaded:
    """Load settings.

    Args:
        path: the TOML file; None for defaults and environment alone.
        environ: defaults to ``os.environ``.
        overrides: dotted keys (``"orchestrator.listen_addr"``) from flags.

    Raises:
        ConfigError: unreadable, not TOML, unknown key, wrong value; names file, line, key and remedy.
    """
    text = "" if path is None else _read(path)
    data = _parse(text, path)
    _hoist_flat_keys(data)
    sources = {key: f"{path}:{_line_of(text, key) or '?'}" for key in _leaves(data)}
    for name, value in (os.environ if environ is None else environ).items():
        if name.startswith(_PREFIX) and name not in _CLIENT_VARIABLES and "__" in name:
            key = name[len(_PREFIX) :].lower().replace("__", ".")
            _assign(data, key, _from_text(value))
            sources[key] = f"env {name}"
    for key, value in (overrides or {}).items():
        if value is not None:
            _assign(data, key, value)
            sources[key] = "flag"
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise _explain(error, text, path, sources) from None
    return Loaded(settings, sources, path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("CONFIG_UNREADABLE", why=f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("CONFIG_SYNTAX", why=f"{path}: not UTF-8 text") from None


def _parse(text: str, path: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("CONFIG_SYNTAX", why=f"{path}: {error}") from None


def _hoist_flat_keys(data: dict[str, Any]) -> None:
    """The guide writes the orchestrator's keys without a table; they mean ``[orchestrator]``."""
    flat = [key for key in data if key not in _TABLES and key in OrchestratorSettings.model_fields]
    if flat:
        table = data.setdefault("orchestrator", {})
        for key in flat:
            table.setdefault(key, data.pop(key))


def _from_text(value: str) -> Any:
    """An environment value: TOML syntax where it parses (numbers, booleans, lists), else the text itself."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _assign(data: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for part in parents:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise ConfigError("CONFIG_INVALID", why=f"{dotted}: {part} is a value, not a table")
    data[last] = value


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _line_of(text: str, dotted: str) -> int | None:
    """The line that sets ``dotted``: tomllib keeps no positions, but headers and keys stand on lines of their own."""
    *table, key = dotted.split(".")
    current: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            current = [part.strip().strip("\"'") for part in header[1].split(".")]
            if current == [*table, key]:
                return number
        elif assigned := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            full = [*current, *(part.strip("\"'") for part in assigned[1].split("."))]
            if full == [*table, key] or (not current and table == ["orchestrator"] and full == [key]):
                return number
    return None


def _explain(error: ValidationError, text: str, path: Path | None, sources: Mapping[str, str]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    key = ".".join(location)
    where = sources.get(key) or (f"{path}:{line}" if (line := _line_of(text, key)) else str(path or "configuration"))
    message = first["msg"].removeprefix("Value error, ")
    code = "SECRET_PLACEHOLDER" if "placeholder" in message else "CONFIG_INVALID"
    if first["type"] == "extra_forbidden":
        known = get_close_matches(location[-1], _fields_at(location[:-1]), n=1)
        message = "unknown key" + (f" (did you mean {known[0]}?)" if known else "")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ConfigError(code, why=f"{where}: {key}: {message}{more}", key=key)


def _fields_at(location: list[str]) -> list[str]:
    model: Any = Settings
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue  # the NAME in [pools.NAME]
        inner = field.annotation
        arguments = getattr(inner, "__args__", ())
        model = next((item for item in (inner, *arguments) if _is_model(item)), model)
    return list(getattr(model, "model_fields", {}))


def _is_model(item: Any) -> bool:
    return isinstance(item, type) and issubclass(item, BaseModel)
