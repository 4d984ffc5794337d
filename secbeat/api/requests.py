"""What handlers use: the caller, the body, the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from aiohttp import web
from pydantic import ValidationError

from secbeat.auth import Principal
from secbeat.errors import SecbeatError
from secbeat.wire.base import Wire

M = TypeVar("M", bound=Wire)
PRINCIPAL = web.RequestKey("principal", Principal)
ANONYMOUS = Principal("loopback", "operate")


class ApiError(SecbeatError):
    """An answer with a status and a code."""

    def __init__(self, code: str, status: int, why: str, *, fix: str | None = None, **facts: Any) -> None:
        super().__init__(code, why=why, fix=fix, status=status, **facts)
        self.headers: dict[str, str] = {}


def fail(
    code: str, status: int, why: str, *, fix: str | None = None, headers: Mapping[str, str] | None = None, **facts: Any
) -> NoReturn:
    """End the request with an error of the catalogue.

    Raises:
        ApiError: always.
    """
    error = ApiError(code, status, why, fix=fix, **facts)
    error.headers.update(headers or {})
    raise error


def principal(request: web.Request) -> Principal:
    """Who calls; loopback without a token where the route is open to it."""
    return request[PRINCIPAL] if PRINCIPAL in request else ANONYMOUS  # noqa: SIM401 - get() is untyped for RequestKey


async def read_body(request: web.Request, model: type[M]) -> M:
    """The JSON body as ``model``.

    Raises:
        ApiError: 415 no JSON content type, 413 too large, 400 not JSON, 422 not this shape.
    """
    if request.content_type != "application/json":
        fail("CONTENT_TYPE", 415, f"Content-Type is {request.headers.get('Content-Type', 'absent')!r}")
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        fail("BODY_TOO_LARGE", 413, str(error.text))
    return parse_body(raw, model)


def parse_body(raw: bytes, model: type[M]) -> M:
    """``raw`` as ``model``; see :func:`read_body`."""
    try:
        json.loads(raw)
    except (ValueError, RecursionError) as error:
        fail("BODY_MALFORMED", 400, f"not JSON: {str(error)[:200]}")
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        fail("BODY_INVALID", 422, f"{where}: {first['msg']}"[:500], field=where)


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer from a wire model or plain data."""
    text = content.model_dump_json() if isinstance(content, Wire) else json.dumps(content)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")
