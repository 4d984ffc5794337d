"""Read the file, lay environment and flags over it, validate, remember where each value came from."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from secbeat.errors import ConfigError
from secbeat.settings.environment import variables
from secbeat.settings.locating import explain, line_of
from secbeat.settings.model import OrchestratorSettings, Settings


@dataclass(frozen=True)
class Loaded:
    """Validated settings; per dotted key that is not a default, its source (``FILE:LINE``, ``env NAME``, ``flag``)."""

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
        overrides: dotted keys (``"orchestrator.listen_addr"``) from flags; None values are left out.

    Raises:
        ConfigError: unreadable, not TOML, unknown key, wrong value; names file, line, key and remedy.
    """
    text = "" if path is None else _read(path)
    data = _parse(text, path)
    _hoist_flat_keys(data)
    sources = {key: f"{path}:{line_of(text, key) or '?'}" for key in _leaves(data)}
    for name, key, value in variables(os.environ if environ is None else environ):
        _assign(data, key, value)
        sources[key] = f"env {name}"
    for key, value in (overrides or {}).items():
        if value is not None:
            _assign(data, key, value)
            sources[key] = "flag"
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise explain(error, text, path, sources) from None
    return Loaded(settings, sources, path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("CONFIG_UNREADABLE", why=f"{path}: {error.strerror}", fix=f"ls -l {path}") from None
    except UnicodeDecodeError:
        raise ConfigError("CONFIG_SYNTAX", why=f"{path}: not UTF-8 text") from None


def _parse(text: str, path: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            "CONFIG_SYNTAX", why=f"{path}: {error}", fix=f"Mend the line, then: secbeat config check {path}"
        ) from None


def _hoist_flat_keys(data: dict[str, Any]) -> None:
    """The guide writes the orchestrator's keys without a table; they mean ``[orchestrator]``."""
    flat = [key for key in data if key not in Settings.model_fields and key in OrchestratorSettings.model_fields]
    if not flat:
        return
    table = data.setdefault("orchestrator", {})
    for key in flat:
        if key in table:
            raise ConfigError("CONFIG_INVALID", why=f"{key} is set twice: at the top level and in [orchestrator]")
        table[key] = data.pop(key)


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
