"""The schema of log lines, as a file of the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def load() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every JSON line of a service's log is valid against."""
    text = resources.files("secbeat.telemetry").joinpath("log.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
