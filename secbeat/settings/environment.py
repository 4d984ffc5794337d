"""Settings from the environment: ``SECBEAT_ORCHESTRATOR__LISTEN_ADDR`` is ``orchestrator.listen_addr``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from secbeat.errors import ConfigError
from secbeat.settings.model import Settings
from secbeat.settings.tree import find, table_at, takes_text

_PREFIX = "SECBEAT_"


def variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    """Each setting in ``environ`` as (variable, dotted key, value).

    Raises:
        ConfigError: a variable names no key, or has one underscore where a key has two (CONFIG_INVALID).
    """
    for name, text in sorted(environ.items()):
        if not name.startswith(_PREFIX):
            continue
        rest = name[len(_PREFIX) :].lower()
        if "__" in rest:
            dotted = rest.replace("__", ".")
            yield name, dotted, from_text(f"environment variable {name}", dotted, text)
        elif meant := _missing_underscore(rest):
            raise _refused(
                f"environment variable {name}", f"table and key are separated by two underscores; did you mean {meant}?"
            )


def from_text(giver: str, dotted: str, text: str) -> Any:
    """The value that ``text`` means for the key ``dotted``; ``giver`` is named when there is no such key.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    if ".variables." in dotted:  # a blueprint's own variables have no schema here
        return _from_toml(text)
    key = find(dotted)
    if key is None:
        raise _refused(giver, f"there is no key {dotted}{_suggestion(dotted)}")
    return text if takes_text(key.field.annotation) else _from_toml(text)


def _from_toml(text: str) -> Any:
    """TOML syntax where it parses (numbers, booleans, lists), else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _suggestion(dotted: str) -> str:
    *table, last = dotted.split(".")
    model = table_at(table)
    if model is None:
        known = get_close_matches(table[0] if table else last, list(Settings.model_fields), n=1)
        return f" (did you mean the table {known[0]}?)" if known and known[0] != table[0] else ""
    known = get_close_matches(last, list(model.model_fields), n=1)
    return f" (did you mean {'.'.join([*table, known[0]])}?)" if known else ""


def _missing_underscore(rest: str) -> str | None:
    """The variable that was meant, if one underscore more makes it a key. Other programs' variables pass."""
    table, _, key = rest.partition("_")
    model = table_at([table]) if table in Settings.model_fields else None
    return f"{_PREFIX}{table.upper()}__{key.upper()}" if model is not None and key in model.model_fields else None


def _refused(giver: str, sentence: str) -> ConfigError:
    return ConfigError("CONFIG_INVALID", why=f"{giver}: {sentence}", fix=f"Correct or remove it: {giver}")
