"""Log lines and their schema: what the code may write is what the schema has."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import jsonschema
import pytest

import secbeat
from secbeat import logs
from secbeat.telemetry import context, logschema

ROOT = Path(secbeat.__file__).parents[1]
SCHEMA = logschema.load()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
CONTEXT = f"00-{'a' * 32}-{'b' * 16}-01"


def line(level=logging.INFO, *, error=None, **extra):
    record = logging.getLogger("ResourceManager").makeRecord(
        "ResourceManager", level, __file__, 1, "Scaled", (), error, extra=extra
    )
    return json.loads(logs.JsonFormatter("orchestrator").format(record))


def keys_in(path):
    """The keys of every ``extra={…}`` in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        calls = node.keywords if isinstance(node, ast.Call) else ()
        for word in calls:
            if word.arg == "extra" and isinstance(word.value, ast.Dict):
                yield from (key.value for key in word.value.keys if isinstance(key, ast.Constant))


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert all(field.get("description", "").endswith(".") for field in SCHEMA["properties"].values())


@pytest.mark.parametrize("package", ["secbeat", "orchestrator", "provisioner", "node"])
def test_every_key_that_the_code_puts_on_a_line_is_in_the_schema(package):
    unknown = {
        f"{path.relative_to(ROOT)}: {key}"
        for path in (ROOT / package).rglob("*.py")
        for key in keys_in(path)
        if key not in SCHEMA["properties"]
    }
    assert not unknown, "describe it in secbeat/telemetry/log.schema.json"


def test_a_line_is_valid_with_a_traceback_too():
    try:
        int("broken")
    except ValueError as error:
        found = line(logging.ERROR, error=(ValueError, error, error.__traceback__), action="task_failed")
    VALIDATOR.validate(found)
    assert "ValueError: invalid literal" in found["traceback"]


def test_a_field_that_nobody_described_is_found():
    assert [error.validator for error in VALIDATOR.iter_errors(line(invented=1))] == ["additionalProperties"]


def test_the_trace_stands_on_the_lines_of_its_work_and_on_no_others():
    with context.within(CONTEXT):
        inside = line(action="operation")
    VALIDATOR.validate(inside)
    assert (inside["trace_id"], inside["span_id"]) == ("a" * 32, "b" * 16)
    assert not {"trace_id", "span_id"} & set(line())


@pytest.mark.parametrize(
    "text", [None, "", "x", f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'A' * 32}-{'b' * 16}-01", "00-a-b-01\n"]
)
def test_what_is_no_trace_context_is_none(text):
    assert context.checked(text) is None
    assert context.exemplar(text) is None
    with context.within(text):
        assert "trace_id" not in line()
