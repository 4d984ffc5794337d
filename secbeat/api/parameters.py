"""Parameters as data: from one table come the check of a request and its line in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn

from aiohttp import web

from secbeat import ids
from secbeat.api.requests import fail

_TRUE, _FALSE = frozenset({"", "1", "true", "yes"}), frozenset({"0", "false", "no"})
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
QUERY: web.RequestKey[dict[str, Any]] = web.RequestKey("query", dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter: what it does, and which values it takes.

    ``text`` is any text up to ``high`` characters, ``integer`` lies in ``low`` to ``high``, ``flag`` is a yes or no
    (the bare name means yes), ``moment`` a time of RFC 3339, ``choices`` one or several of ``choices``, with commas.
    """

    description: str
    kind: Literal["text", "integer", "flag", "moment", "choices"] = "text"
    low: int = 0
    high: int = 200
    default: Any = None
    choices: tuple[str, ...] = ()

    def read(self, name: str, text: str) -> Any:
        """The value that ``text`` stands for: str, int, bool, datetime (UTC) or frozenset of str.

        Raises:
            ApiError: 422 QUERY_INVALID.
        """
        if self.kind == "integer":
            return _integer(name, text, self.low, self.high)
        if self.kind == "flag":
            if text.lower() not in _TRUE | _FALSE:
                _wrong(name, text, "1 or 0")
            return text.lower() in _TRUE
        if self.kind == "moment":
            return moment(name, text)
        if self.kind == "choices":
            chosen = frozenset(text.split(","))
            if not chosen <= set(self.choices):
                _wrong(name, text, f"one or several of {', '.join(self.choices)}")
            return chosen
        if not 0 < len(text) <= self.high or not text.isprintable():
            _wrong(name, text, f"text of 1 to {self.high} characters")
        return text

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the value as it is written."""
        if self.kind == "integer":
            shown = {"type": "integer", "minimum": self.low, "maximum": self.high}
            return shown if self.default is None else shown | {"default": self.default}
        if self.kind == "flag":
            return {"type": "string", "enum": ["1", "0", "true", "false"]}
        if self.kind == "moment":
            return {"type": "string", "format": "date-time", "examples": ["2026-11-25T03:00:00Z"]}
        if self.kind == "choices":
            return {"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(self.choices)}}
        return {"type": "string", "minLength": 1, "maxLength": self.high}

    def described(self, name: str) -> dict[str, Any]:
        """The OpenAPI parameter object."""
        shown = {"name": name, "in": "query", "description": self.description, "schema": self.schema()}
        return shown | ({"style": "form", "explode": False} if self.kind == "choices" else {})


def choices(description: str, *values: str) -> Parameter:
    """One or several of ``values``."""
    return Parameter(description, "choices", choices=values)


def flag(description: str) -> Parameter:
    """Yes or no; no by default."""
    return Parameter(description, "flag", default=False)


def integer(description: str, *, low: int, high: int, default: int | None = None) -> Parameter:
    """A number from ``low`` to ``high``."""
    return Parameter(description, "integer", low=low, high=high, default=default)


SINCE = Parameter("Only what began at this time or later", "moment")
POOL = Parameter("Only this pool", high=26)

IN_PATH: Mapping[str, dict[str, Any]] = {
    "name": {"type": "string", "pattern": ids.POOL_PATTERN, "examples": ["default"]},
    "node_id": {"type": "string", "format": "uuid", "examples": ["3f0c9a52-8b1e-4c86-9d0e-6d1f4b7a2c11"]},
    "op_id": {"type": "string", "pattern": ids.OP_PATTERN, "examples": ["01JDG5Y3Q8V7N2M4K6H0T9R1WX"]},
    "ip": {"type": "string", "minLength": 1, "maxLength": 64, "examples": ["203.0.113.7", "198.51.100.0/24"]},
}
"""What stands in a path, by name."""


def read_query(
    request: web.Request, declared: Mapping[str, Parameter], *, ignore_unknown: bool = False
) -> dict[str, Any]:
    """All declared parameters with their values or defaults.

    Raises:
        ApiError: 422 QUERY_INVALID: an unknown one, one given twice, or a wrong value.
    """
    values = {name: parameter.default for name, parameter in declared.items()}
    seen: set[str] = set()
    for name, text in request.query.items():
        if name not in declared:
            if ignore_unknown:
                continue
            known = f"there are: {', '.join(declared)}" if declared else "there is none"
            fail("QUERY_INVALID", 422, f"{name[:40]!r} is no parameter here; {known}", field=name[:40])
        if name in seen:
            fail("QUERY_INVALID", 422, f"{name} is given twice", field=name)
        seen.add(name)
        values[name] = declared[name].read(name, text)
    return values


def asked(request: web.Request, name: str) -> Any:
    """The checked value of a declared parameter, or its default."""
    return request[QUERY][name]


def moment(name: str, text: str) -> datetime:
    """A time of RFC 3339 or ISO 8601; one without a zone is UTC.

    Raises:
        ApiError: 422 QUERY_INVALID.
    """
    try:
        # In a query, "+02:00" arrives as " 02:00" unless the client encodes the plus.
        found = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        _wrong(name, text, "like 2026-11-25T03:00:00Z")
    return min(max(found, _EARLIEST), _LATEST)


def _integer(name: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19 and low <= int(text) <= high):
        _wrong(name, text, f"a number from {low} to {high}")
    return int(text)


def _wrong(name: str, text: str, form: str) -> NoReturn:
    fail("QUERY_INVALID", 422, f"{name} is {text[:40]!r}; it must be {form}", field=name)
