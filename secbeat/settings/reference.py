"""``python -m secbeat.settings.reference`` prints every configuration key as Markdown, for the docs.

Generated from the model alone, so the page cannot say anything else than the program does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from secbeat.settings.tree import NAME, Key, keys, table_at

_INTRO = """# Configuration

One TOML file, given with `--config FILE`. The environment stands over the file (`SECBEAT_ORCHESTRATOR__LISTEN_ADDR`
is `listen_addr` in `[orchestrator]`), flags stand over both. `secbeat config check FILE` validates,
`secbeat config show --config FILE` prints the effective values and where each came from.

Durations are seconds, fractions run from 0 to 1, addresses are `host:port`. A **live** key is applied by SIGHUP, a
**restart** key at the next start. An unknown key, a wrong unit or an impossible pair stops the start.
"""
_KINDS = {str: "text", int: "integer", float: "number", bool: "boolean", Path: "path", SecretStr: "secret"}


def markdown() -> str:
    """The whole page."""
    return "\n".join([_INTRO, *_sections()])


def _sections() -> Iterator[str]:
    for table, entries in groupby(keys(), key=lambda key: key.table):
        yield f"## `[{table}]`\n"
        if summary := _summary(table):
            yield f"{summary}\n"
        yield "| key | kind | default | reload | meaning |\n| --- | --- | --- | --- | --- |"
        yield "\n".join(_row(key) for key in entries) + "\n"


def _summary(table: str) -> str:
    model = table_at(table.replace(NAME, "name").split("."))
    text = (model.__doc__ or "") if model is not None else ""
    return " ".join(text.split()).replace("``", "`").removeprefix(f"`[{table}]`").lstrip(":. ")


def _row(key: Key) -> str:
    cells = (f"`{key.name}`", _kind(key), _default(key), key.reload, key.field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(key: Key) -> str:
    bounds = _bounds(key)
    return _name(key.field.annotation) + (f" ({bounds})" if bounds else "")


def _name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is list:
        return f"list of {_name(arguments[0])}"
    if origin is dict:
        return "table"
    inner = [item for item in arguments if item is not type(None)]
    if origin is not None and inner:
        return _name(inner[0])
    return _KINDS.get(annotation, "network" if "Network" in getattr(annotation, "__name__", "") else "text")


def _bounds(key: Key) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {_number(getattr(item, name))}"
        for item in key.field.metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    ]
    return ", ".join(found)


def _number(value: float) -> str:
    return f"{int(value)}" if value == int(value) else f"{value:g}"


def _default(key: Key) -> str:
    value = key.field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    if isinstance(value, BaseModel | dict):
        return "`{}`"
    return f"`{value}`" if isinstance(value, int | float) else f'`"{value}"`'


if __name__ == "__main__":
    sys.stdout.write(markdown())
