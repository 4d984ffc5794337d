"""What handlers use: the caller, the body, the query, the answer."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError

from secbeat.auth import Principal
from secbeat.errors import SecbeatError
from secbeat.wire.base import Wire

M = TypeVar("M", bound=Wire)
Change = tuple[dict[str, Any] | None, dict[str, Any] | None]

PRINCIPAL = web.RequestKey("principal", Principal)
CHANGE: web.RequestKey[Change] = web.RequestKey("change", tuple)
BODY_SECONDS = 20.0
LOOPBACK = Principal("loopback", "operate")
ANONYMOUS = Principal("anonymous", "read")


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
    """Who calls: a token's owner, ``loopback`` where the route is open to it, else ``anonymous``."""
    return request[PRINCIPAL] if PRINCIPAL in request else ANONYMOUS  # noqa: SIM401 - get() is untyped for RequestKey


def bearer(request: web.BaseRequest) -> str | None:
    """The bearer token of the request, unchecked."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def changed(request: web.Request, *, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None) -> None:
    """Tell the audit what the request changed; JSON-ready, no secrets."""
    request[CHANGE] = (before, after)


def change_of(request: web.Request) -> Change:
    """What :func:`changed` was told."""
    return request[CHANGE] if CHANGE in request else (None, None)  # noqa: SIM401 - as above


async def read_body(request: web.Request, model: type[M]) -> M:
    """The JSON body as ``model``.

    Raises:
        ApiError: 415 no JSON content type, 413 too large, 408 too slow, 400 not JSON, 422 not this shape.
    """
    if request.content_type != "application/json":
        fail("CONTENT_TYPE", 415, f"Content-Type is {request.headers.get('Content-Type', 'absent')!r}")
    return parse_body(await read_raw(request), model)


async def read_optional(request: web.Request, model: type[M]) -> M:
    """Like :func:`read_body`; a request without a body stands for ``{}``."""
    if not request.body_exists:
        return parse_body(b"{}", model)
    return await read_body(request, model)


async def read_raw(request: web.Request) -> bytes:
    """The body as it came, for signatures.

    Raises:
        ApiError: 413 too large, 408 too slow, 400 its framing is broken.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        fail("BODY_TOO_LARGE", 413, str(error.text))
    except TimeoutError:
        fail(
            "BODY_TOO_SLOW", 408, f"the body did not arrive within {BODY_SECONDS:g} s", headers={"Connection": "close"}
        )
    except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError) as error:
        fail("REQUEST_MALFORMED", 400, str(error)[:200])


def parse_body(raw: bytes, model: type[M], *, strict: bool = False) -> M:
    """``raw`` as ``model``; see :func:`read_body`.

    Args:
        strict: no conversions: ``"5"`` and ``5.0`` are no integers.
    """
    try:
        found = model.model_validate_json(raw, strict=strict)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # The parser also refuses what would nest deeper than its limit, before anything is built from it.
        if first["type"] == "json_invalid":
            fail("BODY_MALFORMED", 400, first["msg"].removeprefix("Invalid JSON: ")[:200])
        where = ".".join(str(part) for part in first["loc"]) or "body"
        fail("BODY_INVALID", 422, f"{where}: {first['msg']}"[:500], field=where[:200])
    _check_unambiguous(raw)
    return found


def _check_unambiguous(raw: bytes) -> None:
    """Two readers must not understand two things: no key twice, no number that no double holds.

    Raises:
        ApiError: 422 a key is given twice, 400 NaN, 1e999 and the like.
    """
    try:
        json.loads(raw, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_finite, parse_float=_finite)
    except ApiError:
        raise
    except (ValueError, RecursionError) as error:
        fail("BODY_MALFORMED", 400, str(error)[:200])


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        fail("BODY_INVALID", 422, f"duplicate field {twice[:80]!r}", field=twice[:80])


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        fail("BODY_MALFORMED", 400, f"the number {text[:20]}… is out of range")
    return value


def _no_constant(name: str) -> NoReturn:
    fail("BODY_MALFORMED", 400, f"{name} is no JSON number")


def query_flag(request: web.Request, name: str) -> bool:
    """Whether ``?name=`` is set to something that means yes."""
    return request.query.get(name, "").lower() in {"1", "true", "yes"}


def query_int(request: web.Request, name: str, default: int, *, low: int, high: int) -> int:
    """``?name=`` as a number.

    Raises:
        ApiError: 422, not a number of that range.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19 and low <= int(text) <= high):
        fail("QUERY_INVALID", 422, f"{name} is {text[:40]!r}; it must be a number from {low} to {high}", field=name)
    return int(text)


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer from a wire model or plain data."""
    text = content.model_dump_json() if isinstance(content, Wire) else json.dumps(content)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")
