"""OpenAPI 3.1 from the route table and the wire models, and a page that shows it without any script from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from secbeat import __version__
from secbeat.api.routes import Route, plain_path

_REF = "#/components/schemas/{model}"
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "see: secbeat explain CODE"},
        "detail": {"type": "string"},
        "fix": {"type": "string"},
    },
}
_REFUSED = {
    "description": "refused or failed",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_REFUSED_ORIGINAL = {"description": "refused or failed: the original's status; a line of text at 400, 415, 422"}


def document(title: str, routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI document as plain data."""
    shapes, schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for number, route in enumerate(routes):
        operation = _operation(route, shapes.get((number, "validation")), shapes.get((number, "serialization")))
        paths.setdefault(plain_path(route.path), {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": f"SecBeat {title}", "version": __version__, "license": {"name": "Apache-2.0"}},
        "components": {
            "schemas": {"Problem": _PROBLEM, **schemas},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "paths": paths,
    }


def _schemas(routes: Sequence[Route]) -> tuple[dict[tuple[int, Any], Any], dict[str, Any]]:
    """The schema of each route's body and answer, and what they refer to; equal names of two models are kept apart."""
    inputs: list[tuple[int, Any, TypeAdapter[Any]]] = []
    for number, route in enumerate(routes):
        if route.request is not None:
            inputs.append((number, "validation", TypeAdapter(route.request)))
        if route.response is not None:
            inputs.append((number, "serialization", TypeAdapter(route.response)))
    shapes, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    return dict(shapes), definitions.get("$defs", {})


def _operation(route: Route, body: Any, answer: Any) -> dict[str, Any]:
    path = plain_path(route.path)
    done: dict[str, Any] = {"description": "done"}
    if answer is not None:
        done["content"] = {"application/json": {"schema": answer}}
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}_{path}").strip("_"),
        "summary": route.summary,
        "responses": {str(route.status): done, "default": _REFUSED_ORIGINAL if route.legacy else _REFUSED},
    }
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in route.query.items()
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.scope is not None:
        operation["security"] = [{"bearer": []}]
        operation["x-secbeat-scope"] = route.scope
        operation["x-secbeat-open-to-loopback"] = route.loopback_open
    if route.changes:
        operation["x-secbeat-changes"] = True
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return operation


_STYLE = """:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;
padding:0 1rem}code{font-family:ui-monospace,monospace}td{padding:.3rem .8rem .3rem 0;vertical-align:top}
.m{font-weight:600}"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

PAGE_CSP = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: its own style by hash, and nothing else."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ doc.info.title }}</title>
<style>{{ style|safe }}</style></head><body>
<h1>{{ doc.info.title }} <small>{{ doc.info.version }}</small></h1>
<p>The whole description, with all fields: <a href="api/openapi.json">api/openapi.json</a></p>
<table>
{% for path, methods in doc.paths.items() %}{% for method, op in methods.items() %}
<tr><td class="m">{{ method|upper }}</td><td><code>{{ path }}</code></td><td>{{ op.summary }}</td>
<td>{{ op["x-secbeat-scope"] or "open" }}
{% if op["x-secbeat-open-to-loopback"] %}, open on loopback{% endif %}</td></tr>
{% endfor %}{% endfor %}
</table></body></html>
"""


def page(doc: dict[str, Any]) -> str:
    """The document as a readable page."""
    # Two megabytes, and most processes are never asked for the page.
    from jinja2 import Environment  # noqa: PLC0415 - see above

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    return template.render(doc=doc, style=_STYLE)
