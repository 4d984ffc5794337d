"""OpenAPI 3.1 from the route table and the wire models: every route, every status that it can answer with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter

from secbeat import __version__
from secbeat.api.headers import STRICT
from secbeat.api.parameters import IN_PATH
from secbeat.api.routes import Answer, Route, plain_path
from secbeat.wire.base import Wire

_REF = "#/components/schemas/{model}"
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details; members beside these are facts about the case",
    "required": ["type", "title", "status", "code", "detail", "fix"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:secbeat:error:[A-Z0-9_]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string", "pattern": "^[A-Z][A-Z0-9_]*$", "description": "See: secbeat explain CODE"},
        "detail": {"type": "string", "description": "The measured why"},
        "fix": {"type": "string", "description": "A remedy that can be pasted"},
    },
    "examples": [
        {
            "type": "urn:secbeat:error:NOT_FOUND",
            "title": "There is no such thing here",
            "status": 404,
            "code": "NOT_FOUND",
            "detail": "there is no pool web",
            "fix": "List what exists: secbeat pools, secbeat nodes, secbeat operations",
        }
    ],
}
_MEANINGS = {
    304: "Not changed since the answer whose ETag is in If-None-Match",
    400: "No well-formed request: its HTTP, its JSON, or an id in the path",
    401: "No valid token",
    403: "Not allowed: the token's scope, the Host, or a page of another site",
    404: "There is no such thing",
    408: "The body did not arrive in time",
    409: "Refused as things are now: a limit, a pause, a stale revision",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "A field or a parameter has a wrong value",
    429: "Too many failed logins from this address",
    503: "Not now: another orchestrator leads, or the store does not answer",
}
_RETRY = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    429: _RETRY,
}
_SIGNED = "signature"
_SCOPES = {
    "read": "A token that may look (scopes read, operate and admin)",
    "operate": "A token that may change (scopes operate and admin)",
    "admin": "A token that may do everything",
    "service": "A token of another service (scopes service and admin)",
}


def document(title: str, routes: Sequence[Route], examples: Mapping[type[Wire], Any] | None = None) -> dict[str, Any]:
    """The OpenAPI document as plain data.

    Args:
        examples: a request or answer of each model, shown in its schema.
    """
    shapes, schemas = _schemas(routes)
    for model, example in (examples or {}).items():
        # A model whose input and output differ has two schemas.
        for suffix in ("", "-Input", "-Output"):
            if (schema := schemas.get(model.__name__ + suffix)) is not None:
                schema["examples"] = [example]
    paths: dict[str, dict[str, Any]] = {}
    for number, route in enumerate(routes):
        paths.setdefault(plain_path(route.path), {})[route.method.lower()] = _operation(number, route, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"SecBeat {title}", "version": __version__, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "components": {
            "schemas": {"Problem": _PROBLEM, **schemas},
            "securitySchemes": {
                **{scope: {"type": "http", "scheme": "bearer", "description": text} for scope, text in _SCOPES.items()},
                _SIGNED: {
                    "type": "apiKey",
                    "in": "header",
                    "name": "webhook-signature",
                    "description": "Standard Webhooks 1.0.0: webhook-id, webhook-timestamp and webhook-signature",
                },
            },
        },
        "paths": paths,
    }


def statuses(route: Route) -> dict[int, Answer]:
    """Every status that the route can answer with, beside its success."""
    found = {400, 403} if route.path not in {"/healthz", "/readyz"} else {400}
    if route.scope is not None:
        found |= {401, 429}
    if "{" in route.path:
        found.add(404)
    if route.request is not None:
        found |= {408, 413, 415, 422}
    if route.query or not route.legacy:
        found.add(422)
    if route.changes:
        found |= {409, 503}
    if route.method == "GET" and not route.legacy and route.response is not None and route.media is None:
        found.add(304)
    answers = {status: Answer(_MEANINGS[status]) for status in sorted(found)}
    for status, answer in route.answers.items():
        answers[status] = Answer(answer) if isinstance(answer, str) else answer
    return answers


def _schemas(routes: Sequence[Route]) -> tuple[dict[tuple[Any, Any], Any], dict[str, Any]]:
    """The schema of each route's body and answers, and what they refer to; equal names of two models are kept apart."""
    inputs: list[tuple[Any, Any, TypeAdapter[Any]]] = []
    for number, route in enumerate(routes):
        if route.request is not None:
            inputs.append(((number, 0), "validation", TypeAdapter(route.request)))
        if route.response is not None:
            inputs.append(((number, route.status), "serialization", TypeAdapter(route.response)))
        inputs += [
            ((number, status), "serialization", TypeAdapter(answer.response))
            for status, answer in route.answers.items()
            if isinstance(answer, Answer) and answer.response is not None
        ]
    shapes, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    return {key: shape for (key, _mode), shape in shapes.items()}, definitions.get("$defs", {})


def _operation(number: int, route: Route, shapes: Mapping[tuple[Any, Any], Any]) -> dict[str, Any]:
    path = plain_path(route.path)
    responses: dict[str, Any] = {}
    if route.status not in route.answers:
        responses[str(route.status)] = _success(route, shapes.get((number, route.status)))
    for status, answer in sorted(statuses(route).items()):
        responses[str(status)] = _other(route, status, answer, shapes.get((number, status)), responses)
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}_{path}").strip("_"),
        "summary": route.summary,
        "responses": responses,
    }
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": IN_PATH.get(name, {"type": "string"})}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    parameters += [parameter.described(name) for name, parameter in route.parameters.items()]
    if parameters:
        operation["parameters"] = parameters
    if security := _security(route):
        operation["security"] = security
    if route.scope is not None:
        operation["x-secbeat-scope"] = route.scope
        operation["x-secbeat-open-to-loopback"] = route.loopback_open
    if route.changes:
        operation["x-secbeat-changes"] = True
    if route.request is not None:
        content = {"application/json": {"schema": shapes[number, 0]}}
        operation["requestBody"] = {"required": not route.optional_body, "content": content}
    return operation


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.signed:
        return [{_SIGNED: []}]
    if route.scope is None:
        return []
    return [{route.scope: []}, *([{}] if route.loopback_open else [])]


def _success(route: Route, shape: Any) -> dict[str, Any]:
    headers: dict[str, Any] = {"Cache-Control": {"schema": {"const": STRICT["Cache-Control"]}}}
    headers |= {name: {"description": text, "schema": {"type": "string"}} for name, text in route.headers.items()}
    shown: dict[str, Any] = {"description": "Done", "headers": headers}
    if content := _content(route, shape):
        shown["content"] = content
    return shown


def _content(route: Route, shape: Any) -> dict[str, Any] | None:
    if route.media is not None:
        return {route.media: {"schema": shape or {"type": "string"}}}
    return None if shape is None else {"application/json": {"schema": shape}}


def _other(
    route: Route, status: int, answer: Answer, shape: Any, responses: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.description}
    headers = _HEADERS.get(status)
    if status == 503 and shape is None and not route.legacy:
        headers = _RETRY
    if headers:
        shown["headers"] = headers
    if shape is not None:
        shown["content"] = {"application/json": {"schema": shape}}
    elif 200 <= status < 300:
        if "content" in responses[str(route.status)]:
            shown["content"] = responses[str(route.status)]["content"]
    elif route.legacy and status in {400, 415, 422}:
        shown["content"] = {"text/plain": {"schema": {"type": "string"}}}
    elif status >= 400 and not route.legacy:
        shown["content"] = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    return shown


def models(routes: Sequence[Route]) -> set[type[BaseModel]]:
    """The models that are a body or an answer themselves, for who checks that each has an example."""
    found = {one for route in routes for one in (route.request, route.response)}
    return {one for one in found if isinstance(one, type) and issubclass(one, BaseModel)}


def operation_at(doc: Mapping[str, Any], method: str, path: str) -> dict[str, Any] | None:
    """What ``doc`` says of a method on a concrete path (without its query); None: it has no such operation."""
    for template, methods in doc["paths"].items():
        pattern = "[^/]+".join(re.escape(part) for part in re.split(r"\{\w+\}", template))
        if method.lower() in methods and re.fullmatch(pattern, path):
            found: dict[str, Any] = methods[method.lower()]
            return found
    return None
