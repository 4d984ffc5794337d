"""The stream of events as Server-Sent Events: resumable, filtered, bounded whatever its reader does.

Events are numbered without a hole, so ``Last-Event-ID`` says exactly what a reader has. It is followed before the past
is read and nothing is sent twice, so between the two nothing is lost. A reader that falls behind is cut, not waited
for, and comes back with its number; one that comes back too late is told so by an event ``gap``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from aiohttp import web

from orchestrator.events import Encoded, EventHub, Feed
from orchestrator.http.context import Context
from orchestrator.http.shapes import StreamedEvent
from secbeat.api import Parameter, Route, asked, fail, flag, integer
from secbeat.api.parameters import POOL

KEEPALIVE_SECONDS = 15.0
GATHER_SECONDS = 0.02  # events of so long go out together: fifty readers are then fifty writes, not thousands
_WRITE_SECONDS = 20.0
_MAX_FOLLOWERS = 256
_PIECE = 200  # events of the past that are written at once
_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
_KIND = "Only these kinds and what is below them, with commas: node,operation.failed"

Wanted = Callable[[Encoded], bool]


class Streaming:
    """Handler of ``/api/v1/events``."""

    def __init__(self, context: Context) -> None:
        self._hub = context.events

    async def events(self, request: web.Request) -> web.StreamResponse:
        hub = self._hub
        if hub.followers >= _MAX_FOLLOWERS:
            fail("TOO_MANY_STREAMS", 503, f"{hub.followers} are open", headers={"Retry-After": "30"})
        wanted = _filter(asked(request, "kind"), asked(request, "pool"))
        with hub.follow() as feed:
            past, missing = _past(request, hub)
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            if asked(request, "once"):
                feed.end()
            try:
                await _write(response, _opening(missing, past, hub))
                for piece in _pieces(past, wanted):
                    await _write(response, piece)
                await _follow(response, feed, wanted, hub)
            except (ConnectionError, TimeoutError):
                # Gone, or reading too slowly; it comes back with Last-Event-ID.
                if request.transport is not None:
                    request.transport.abort()
        return response


async def _follow(response: web.StreamResponse, feed: Feed, wanted: Wanted, hub: EventHub) -> None:
    while True:
        seen = hub.last_seq
        try:
            async with asyncio.timeout(KEEPALIVE_SECONDS):
                events = await feed.take()
        except TimeoutError:
            # With the number: who filters would else come back with an old one, for events that it does not want.
            await _write(response, b": ping\nid: %d\n\n" % seen)
            continue
        if not events:
            return
        if data := b"".join(_encode(event) for event in events if wanted(event)):
            await _write(response, data)
        if not feed.ended:
            await asyncio.sleep(GATHER_SECONDS)


def _past(request: web.Request, hub: EventHub) -> tuple[list[Encoded], bool]:
    """What the client asks for of the past, and whether some of it is no longer kept."""
    resume = request.headers.get("Last-Event-ID") or asked(request, "last_event_id")
    if resume is None:
        return hub.newest(asked(request, "newest")), False
    if not (resume.isascii() and resume.isdigit() and len(resume) < 19):
        fail("QUERY_INVALID", 422, f"Last-Event-ID is {resume[:40]!r}", field="Last-Event-ID")
    return hub.since(int(resume))


def _opening(missing: bool, past: list[Encoded], hub: EventHub) -> bytes:
    oldest = past[0].seq if past else hub.last_seq + 1
    if not missing:
        # With the number: whoever loses the connection before the first event misses nothing either.
        return b": hello\nid: %d\n\n" % (oldest - 1)
    return b': some events before these are no longer kept\nevent: gap\ndata: {"oldest":%d}\n\n' % oldest


def _pieces(past: list[Encoded], wanted: Wanted) -> Iterator[bytes]:
    for start in range(0, len(past), _PIECE):
        if piece := b"".join(_encode(event) for event in past[start : start + _PIECE] if wanted(event)):
            yield piece


def _filter(kinds: str | None, pool: str | None) -> Wanted:
    """Whether an event is of one of the kinds and of the pool."""
    exact: Iterable[str] = () if kinds is None else kinds.split(",")
    names, beginnings = frozenset(exact), tuple(f"{kind}." for kind in exact)

    def wanted(event: Encoded) -> bool:
        if pool is not None and event.pool != pool:
            return False
        return kinds is None or event.kind in names or event.kind.startswith(beginnings)

    return wanted


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
    """The route of this module."""
    streaming = Streaming(context)
    return [
        Route(method="GET", path="/api/v1/events", handler=streaming.events, scope="read",
              response=StreamedEvent, media="text/event-stream",
              summary="Server-Sent Events: `id` is the event's seq, `data` its JSON; `gap`: some are no longer kept",
              query={"kind": Parameter(_KIND), "pool": POOL,
                     "newest": integer("Begin with so many past events", low=0, high=10_000, default=0),
                     "once": flag("End after those"),
                     "last_event_id": Parameter("As the header Last-Event-ID", high=18)},
              answers={503: "Too many streams are open"}),
    ]  # fmt: skip
