"""One request through the proxy: up with its body, down with the answer, errors in between as 502, 504 and the like."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs, web

from node.dataplane.builtin.body import BodyFailed, RequestBody
from node.dataplane.builtin.complaints import Complaints
from node.dataplane.builtin.connection import Connection
from node.dataplane.builtin.headers import Forwarding, end_to_end
from node.dataplane.builtin.responses import UpstreamResponse, close_after, short
from node.dataplane.builtin.target import upstream_url
from secbeat.settings import NodeSettings

log = logging.getLogger("proxy")

_upstream_failed = Complaints(log, "upstream_failed")
_answer_cut = Complaints(log, "answer_cut")
_AUTOMATIC = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where requests go and how long they may take."""

    session: aiohttp.ClientSession
    settings: NodeSettings
    forwarding: Forwarding


async def forward(
    upstream: Upstream, request: web.BaseRequest, peer: str, *, draining: Callable[[], bool]
) -> web.StreamResponse:
    """Ask the upstream and stream its answer; the response is finished when this returns."""
    settings = upstream.settings
    url = upstream_url(settings.backend, request.method, request.raw_path)
    if url is None:
        return short(405 if request.method == hdrs.METH_CONNECT else 400, "this request cannot be forwarded")
    if refusal := _refuse_body(request, settings.max_body_bytes):
        return refusal
    body: RequestBody | None = None
    if request.body_exists and not request.content.at_eof():
        body = RequestBody(
            request,
            max_bytes=settings.max_body_bytes,
            stall_seconds=settings.idle_timeout_seconds,
            answer_seconds=settings.upstream_timeout_seconds,
        )
    answer: aiohttp.ClientResponse | None = None
    try:
        async with asyncio.timeout(settings.upstream_timeout_seconds) as limit:
            if body is not None:
                body.limit = limit
            try:
                answer = await upstream.session.request(
                    request.method,
                    url,
                    headers=upstream.forwarding.request(request.headers, peer),
                    data=body,
                    allow_redirects=False,
                    skip_auto_headers=_AUTOMATIC,
                )
            finally:
                if body is not None:
                    body.limit = None
        return await _relay(request, answer, settings, draining=draining)
    except TimeoutError:
        return _failed(request, body, 504, "the upstream did not answer in time", "time-out")
    except (aiohttp.ClientError, BodyFailed, OSError) as error:
        return _failed(request, body, 502, "the upstream cannot be reached", repr(error))
    finally:
        await _leave(answer, body)


def _refuse_body(request: web.BaseRequest, max_bytes: int) -> web.Response | None:
    if request.content_length is not None and request.content_length > max_bytes:
        refused = short(413, "the request's body is too large")
        close_after(refused)
        return refused
    if (expect := request.headers.get(hdrs.EXPECT)) and expect.lower() != "100-continue":
        return short(417, "this expectation is not supported")
    return None


def _failed(request: web.BaseRequest, body: RequestBody | None, status: int, text: str, cause: str) -> web.Response:
    """The answer to a failure before the response began; a broken body is the client's own doing.

    ``cause`` is for the log: a client must not learn where the upstream is.
    """
    if body is not None and body.failure is not None:
        status, text = {
            "too_large": (413, "the request's body is too large"),
            "stalled": (408, "the request's body did not arrive in time"),
            "client_gone": (400, "the request's body is incomplete"),
        }[body.failure]
        refused = short(status, text)
        close_after(refused)
        return refused
    _upstream_failed("%s: %d, %s: %s", request.method, status, text, cause)
    return short(status, text)


async def _relay(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, settings: NodeSettings, *, draining: Callable[[], bool]
) -> web.StreamResponse:
    response = UpstreamResponse(answer.status, answer.reason, end_to_end(answer.headers))
    if draining():
        close_after(response)
    connection = request.protocol
    assert isinstance(connection, Connection)  # noqa: S101 - the plane's own server makes them
    # A stream may be silent for long: a client that has left is noticed by its connection, not by a failed write.
    connection.on_lost = answer.close
    try:
        async with asyncio.timeout(settings.idle_timeout_seconds):
            await response.prepare(request)
        async for chunk in answer.content.iter_any():
            async with asyncio.timeout(settings.idle_timeout_seconds):
                await response.write(chunk)
        async with asyncio.timeout(settings.idle_timeout_seconds):
            await response.write_eof()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        if request.transport is not None:  # else the client left, which is its right
            _answer_cut("%s: answer cut off: %r", request.method, error)
        # Headers are out: a broken answer must look broken.
        connection.abort()
    finally:
        connection.on_lost = None
    return response


async def _leave(answer: aiohttp.ClientResponse | None, body: RequestBody | None) -> None:
    """Give the upstream's connection back.

    One that still takes the body is cut, and the body is let go of: the server reads on from there.
    """
    if answer is None:
        return
    if body is not None and body.started and not body.finished.is_set():
        answer.close()
        try:
            async with asyncio.timeout(1.0):
                await body.finished.wait()
        except TimeoutError:
            log.warning("A request's body is still being read", extra={"action": "body_stuck"})
    else:
        answer.release()
