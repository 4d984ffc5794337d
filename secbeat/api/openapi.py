"""OpenAPI 3.1 from the route table and the wire models, and a page that shows it without any script from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from secbeat import __version__
from secbeat.api.routes import Route

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


def document(title: str, routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI document as plain data."""
    models = {route.request for route in routes if route.request is not None}
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas: dict[str, Any] = {"Problem": _PROBLEM, **definitions.get("$defs", {})}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(_plain_path(route.path), {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"SecBeat {title}", "version": __version__, "license": {"name": "Apache-2.0"}},
        "components": {"schemas": schemas, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
        "paths": paths,
    }


def _plain_path(path: str) -> str:
    """Aiohttp's ``{name:regex}`` as OpenAPI's ``{name}``."""
    return re.sub(r"\{(\w+):[^/]*\}", r"{\1}", path)


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    identifier = re.sub(r"\W+", "_", f"{route.method.lower()}_{_plain_path(route.path)}").strip("_")
    operation: dict[str, Any] = {
        "operationId": identifier,
        "summary": route.summary,
        "responses": {
            str(route.status): {"description": "done", **_content(route.response, schemas)},
            "default": {
                "description": "refused or failed",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if names := re.findall(r"\{(\w+)\}", _plain_path(route.path)):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.scope is not None:
        operation["security"] = [{"bearer": []}]
        operation["x-secbeat-scope"] = route.scope
        operation["x-secbeat-open-to-loopback"] = route.loopback_open
    if route.changes:
        operation["x-secbeat-changes"] = True
    if route.request is not None:
        reference = {"$ref": _REF.format(model=route.request.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
    return operation


def _content(model: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if model is None:
        return {}
    schema = TypeAdapter(model).json_schema(ref_template=_REF, mode="serialization")
    schemas.update(schema.pop("$defs", {}))
    return {"content": {"application/json": {"schema": schema}}}


_PAGE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ doc.info.title }}</title>
<style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;
padding:0 1rem}code{font-family:ui-monospace,monospace}td{padding:.3rem .8rem .3rem 0;vertical-align:top}
.m{font-weight:600}</style></head><body>
<h1>{{ doc.info.title }} <small>{{ doc.info.version }}</small></h1>
<p>The whole description, with all fields: <a href="api/openapi.json">api/openapi.json</a></p>
<table>
{% for path, methods in doc.paths.items() %}{% for method, op in methods.items() %}
<tr><td class="m">{{ method|upper }}</td><td><code>{{ path }}</code></td><td>{{ op.summary }}</td>
<td>{{ op["x-secbeat-scope"] or "open" }}
{% if op["x-secbeat-open-to-loopback"] %}, open on loopback{% endif %}</td></tr>
{% endfor %}{% endfor %}
</table></body></html>
""")


def page(doc: dict[str, Any]) -> str:
    """The document as a readable page."""
    return _PAGE.render(doc=doc)
