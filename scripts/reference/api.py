"""The API reference, from the OpenAPI documents that the services themselves serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.reference.documents import documents
from scripts.reference.tables import table, text

_HEAD = """# API

Every route of the three services, from the OpenAPI 3.1 documents that they serve at `/api/openapi.json` (and, for
reading in a browser without a network, at `/docs`). The documents have every field of every answer; this page has what
one needs to call.

A token is sent as `Authorization: Bearer TOKEN`; which scope a route wants stands beside it, and what the scopes are in
the [security model](../security.md). **Open on loopback** means that a peer on 127.0.0.1 or ::1 needs none. Errors are
`application/problem+json` (RFC 9457) with a `code` of the [catalogue](codes.md) and a `fix`; on the original's routes
they are the original's. Times are RFC 3339 in UTC, durations seconds.

"""
_SERVICES = {
    "orchestrator": ("Orchestrator, port 3030", "Prometheus metrics are served apart, at `127.0.0.1:9091/metrics`."),
    "provisioner": ("Provisioner, port 8000", "Webhooks are authenticated by their signature, not by a token."),
    "node": ("Node, management port 9999", "One token, the node's own; `node:8443/.secbeat/ready` needs none."),
}
Schema = Mapping[str, Any]


def page() -> str:
    """The page: one part per service, one section per route."""
    parts = [_HEAD]
    for name, document in documents().items():
        heading, sentence = _SERVICES[name]
        parts.append(f"## {heading}\n\n{sentence}\n")
        parts += [
            _section(f"{method.upper()} {path}", operation, document["components"]["schemas"])
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
    return "\n".join(parts)


def _section(heading: str, operation: Schema, schemas: Schema) -> str:
    parameters = (
        (f"`{one['name']}`", one["in"], takes(one["schema"], schemas), text(one.get("description", "")))
        for one in operation.get("parameters", ())
    )
    answers = (
        (status, text(answer["description"]), ", ".join(f"`{kind}`" for kind in answer.get("content", {})))
        for status, answer in operation["responses"].items()
    )
    parts = [
        f"### `{heading}`\n",
        f"{text(operation['summary'])}. {_access(operation)}\n",
        table(["parameter", "in", "takes", "meaning"], parameters),
        _body(operation.get("requestBody"), schemas),
        table(["status", "meaning", "content"], answers),
    ]
    return "\n".join(part for part in parts if part)


def _access(operation: Schema) -> str:
    if scope := operation.get("x-secbeat-scope"):
        return f"Scope: **{scope}**" + (", open on loopback." if operation["x-secbeat-open-to-loopback"] else ".")
    return "Authenticated by **signature**." if operation.get("security") else "Open to everybody."


def _body(body: Schema | None, schemas: Schema) -> str:
    if body is None:
        return ""
    schema = body["content"]["application/json"]["schema"]
    parts = ["The body may be absent.\n"] if not body["required"] else []
    for variant in schema.get("anyOf", [schema]):
        name = variant.get("$ref", "").rpartition("/")[2] or variant.get("title", "object")
        fields = table(["field", "takes", "meaning"], _fields(_resolved(variant, schemas), schemas))
        parts += [f"Body `{name}`:\n", fields or "An object without fields.\n"]
    return "\n".join(parts)


def _fields(schema: Schema, schemas: Schema) -> Iterator[tuple[str, str, str]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        yield f"`{name}`" + (" (required)" if name in required else ""), takes(field, schemas), text(_meaning(field))


def _meaning(field: Schema) -> str:
    return str(field.get("description", ""))


def takes(schema: Schema, schemas: Schema) -> str:
    """What a value of ``schema`` looks like, in a few words."""
    if "$ref" in schema and (known := _resolved(schema, schemas)).get("type") == "object":
        return f"object `{schema['$ref'].rpartition('/')[2]}`" if known.get("properties") else "object"
    schema = _resolved(schema, schemas)
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(takes(one, schemas) for one in variants if one.get("type") != "null"))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {takes(schema.get('items', {}), schemas)}"
    words = str(schema.get("format") or schema.get("type") or "anything")
    return words.replace("string", "text") + _bounds(schema)


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f" {low} to {high}" if low is not None and high is not None else ""
    bounds = bounds or (f" ≥ {low}" if low is not None else "")
    return bounds + (f", default {schema['default']}" if schema.get("default") not in {None, ""} else "")


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    return schema
