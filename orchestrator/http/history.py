"""What was: decisions, the audit, and the stream of events."""

from __future__ import annotations

import asyncio

from aiohttp import web

from orchestrator.events import Encoded, EventHub
from orchestrator.http.context import MAX_LIMIT, Context, Page, page
from secbeat.api import Route, fail, query_flag, query_int
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.events import AuditEvent

KEEPALIVE_SECONDS = 15.0
_WRITE_SECONDS = 20.0
_MAX_FOLLOWERS = 256
_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


class History:
    """Handlers of ``/api/v1/decisions``, ``/api/v1/audit`` and ``/api/v1/events``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def decisions(self, request: web.Request) -> web.Response:
        count = query_int(request, "newest", 100, low=1, high=MAX_LIMIT)
        return page(self._context.control.decisions(request.query.get("pool"), newest=count))

    async def audit(self, request: web.Request) -> web.Response:
        count = query_int(request, "newest", 100, low=1, high=MAX_LIMIT)
        return page(await self._context.audit.newest(count))

    async def events(self, request: web.Request) -> web.StreamResponse:
        hub = self._context.events
        if hub.followers >= _MAX_FOLLOWERS:
            fail("TOO_MANY_STREAMS", 503, f"{hub.followers} are open", headers={"Retry-After": "30"})
        # Followed before the past is read, so that nothing falls between the two.
        with hub.follow() as feed:
            head = _past(request, hub)
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            if query_flag(request, "once"):
                feed.end()
            try:
                await _write(response, head or b": hello\n\n")
                while True:
                    try:
                        async with asyncio.timeout(KEEPALIVE_SECONDS):
                            events = await feed.take()
                    except TimeoutError:
                        await _write(response, b": ping\n\n")
                        continue
                    if not events:
                        break
                    await _write(response, b"".join(map(_encode, events)))
            except (ConnectionError, TimeoutError):
                # Gone, or reading too slowly; it comes back with Last-Event-ID.
                if request.transport is not None:
                    request.transport.abort()
        return response


def _past(request: web.Request, hub: EventHub) -> bytes:
    """What the client asks for of the past: all since Last-Event-ID, or the newest few."""
    resume = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    if resume is None:
        return b"".join(map(_encode, hub.newest(query_int(request, "newest", 0, low=0, high=10_000))))
    if not (resume.isascii() and resume.isdigit() and len(resume) < 19):
        fail("QUERY_INVALID", 422, f"Last-Event-ID is {resume[:40]!r}", field="Last-Event-ID")
    events, missing = hub.since(int(resume))
    gap = b": some events before these are no longer kept\nevent: gap\ndata: {}\n\n" if missing else b""
    return gap + b"".join(map(_encode, events))


def _encode(event: Encoded) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (event.seq, event.payload)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Write; a client that does not take it in time is given up.

    Raises:
        TimeoutError: not taken within 20 s.
        ConnectionError: the client has gone.
    """
    async with asyncio.timeout(_WRITE_SECONDS):
        await response.write(data)


def routes(context: Context) -> list[Route]:
    """The routes of this module."""
    history = History(context)
    newest = {"newest": "so many of the newest, 1 to 1000 (100)"}
    return [
        Route(method="GET", path="/api/v1/decisions", handler=history.decisions, scope="read",
              response=Page[DecisionRecord], summary="Decisions, oldest first",
              query={"pool": "only this pool", **newest}),
        Route(method="GET", path="/api/v1/audit", handler=history.audit, scope="read", response=Page[AuditEvent],
              summary="Who asked for which change, oldest first", query=newest),
        Route(method="GET", path="/api/v1/events", handler=history.events, scope="read",
              summary="Server-Sent Events: `id` is the event's seq, `data` its JSON",
              query={"newest": "begin with so many past events", "once": "1: end after those",
                     "last_event_id": "as the header Last-Event-ID"}),
    ]  # fmt: skip
