"""Walk the settings model by dotted key: which fields there are, and what kind of text each one takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from secbeat.settings.model import Settings

NAME = "NAME"  # stands for the name in [pools.NAME] and [blueprints.NAME]


@dataclass(frozen=True, slots=True)
class Key:
    """One configuration key."""

    table: str
    name: str
    field: FieldInfo

    @property
    def dotted(self) -> str:
        return f"{self.table}.{self.name}"

    @property
    def reload(self) -> Literal["live", "restart"]:
        extra = self.field.json_schema_extra
        return "live" if isinstance(extra, dict) and extra.get("reload") == "live" else "restart"


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The table class inside an annotation: of ``X``, ``X | None`` or ``dict[str, X]``."""
    for item in (annotation, *get_args(annotation)):
        if isinstance(item, type) and issubclass(item, BaseModel):
            return item
    return None


def is_named(annotation: Any) -> bool:
    """Whether the annotation is a ``[table.NAME]`` of tables."""
    return get_origin(annotation) is dict and model_in(annotation) is not None


def keys(model: type[BaseModel] = Settings, table: str = "") -> Iterator[Key]:
    """Every key of the configuration, in the order of the model."""
    for name, field in model.model_fields.items():
        dotted = f"{table}.{name}" if table else name
        inner = model_in(field.annotation)
        if inner is None:
            yield Key(table, name, field)
        else:
            yield from keys(inner, f"{dotted}.{NAME}" if is_named(field.annotation) else dotted)


def table_at(location: list[str]) -> type[BaseModel] | None:
    """The table class that stands at a location, names of pools and blueprints included."""
    model: type[BaseModel] | None = Settings
    named = False
    for part in location:
        if named:
            named = False
            continue
        field = model.model_fields.get(part) if model is not None else None
        model = None if field is None else model_in(field.annotation)
        named = field is not None and is_named(field.annotation)
    return None if named else model


def find(dotted: str) -> Key | None:
    """The key of a dotted name such as ``pools.web.max``, or None."""
    *table, name = dotted.split(".")
    model = table_at(table)
    field = model.model_fields.get(name) if model is not None else None
    return None if field is None or model_in(field.annotation) is not None else Key(".".join(table), name, field)


def takes_text(annotation: Any) -> bool:
    """Whether a value of this kind is text: then an environment value is taken as it stands, never as a number."""
    if get_origin(annotation) is Literal:
        return all(isinstance(choice, str) for choice in get_args(annotation))
    if annotation in {str, SecretStr, Path}:
        return True
    if get_origin(annotation) in {list, dict}:
        return False
    inner = [item for item in get_args(annotation) if item is not type(None)]
    return bool(inner) and takes_text(inner[0])


def leaves(data: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every effective value by its dotted key."""
    for name in type(data).model_fields:
        value = getattr(data, name)
        dotted = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{dotted}.")
        elif is_named(type(data).model_fields[name].annotation):
            for item, table in value.items():
                yield from leaves(table, f"{dotted}.{item}.")
        else:
            yield dotted, value
