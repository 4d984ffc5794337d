"""The page of ``/docs``: the OpenAPI document for people, without any script and without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

_STYLE = """:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;
padding:0 1rem}code{font-family:ui-monospace,monospace}td,th{padding:.2rem .8rem .2rem 0;vertical-align:top;
text-align:left}summary{cursor:pointer;padding:.25rem 0}.m{display:inline-block;min-width:4.5rem;font-weight:600}
small{opacity:.7}section{margin:0 0 1rem 1.5rem}"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CSP = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: its own style by hash, and nothing else."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ doc.info.title }}</title>
<style>{{ style|safe }}</style></head><body>
<h1>{{ doc.info.title }} <small>{{ doc.info.version }}</small></h1>
<p>The whole description, with all fields: <a href="api/openapi.json">api/openapi.json</a></p>
{% for path, methods in doc.paths.items() %}{% for method, op in methods.items() %}
<details><summary><span class="m">{{ method|upper }}</span> <code>{{ path }}</code> {{ op.summary }}
<small>{{ op["x-secbeat-scope"] or "open" }}{% if op["x-secbeat-open-to-loopback"] %}, open on loopback{% endif %}
</small></summary><section>
{% if op.parameters %}<table><tr><th>parameter</th><th>takes</th><th></th></tr>
{% for one in op.parameters %}<tr><td><code>{{ one.name }}</code></td><td>{{ takes(one.schema) }}</td>
<td>{{ one.description or "in the path" }}</td></tr>
{% endfor %}</table>{% endif %}
{% if op.requestBody %}<p>Body: <code>{{ body(op.requestBody) }}</code></p>{% endif %}
<table><tr><th>answer</th><th></th><th></th></tr>
{% for status, answer in op.responses.items() %}<tr><td>{{ status }}</td><td>{{ answer.description }}</td>
<td><code>{{ (answer.content or {})|join(", ") }}</code></td></tr>
{% endfor %}</table></section></details>
{% endfor %}{% endfor %}
</body></html>
"""


def _takes(schema: dict[str, Any]) -> str:
    schema = schema.get("items", schema)
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if "minimum" in schema:
        shown = f"{schema['minimum']} to {schema['maximum']}"
        return f"{shown} ({schema['default']})" if "default" in schema else shown
    return str(schema.get("format") or schema.get("pattern") or "text")


def _body(body: dict[str, Any]) -> str:
    schema = body["content"]["application/json"]["schema"]
    return str(schema.get("$ref", "object").rpartition("/")[2]) + ("" if body["required"] else " (may be absent)")


def render(doc: dict[str, Any]) -> str:
    """The document as a readable page."""
    # Two megabytes, and most processes are never asked for the page.
    from jinja2 import Environment  # noqa: PLC0415 - see above

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    return template.render(doc=doc, style=_STYLE, takes=_takes, body=_body)
