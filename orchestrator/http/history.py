"""What was: decisions and the audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from aiohttp import web

from orchestrator.http.context import Context
from orchestrator.http.paging import AFTER, LIMIT, MAX_LIMIT, NEXT_LINK, Moment, Page, before, page
from secbeat.api import Route, asked, choices, flag, integer
from secbeat.api.parameters import POOL, SINCE, Parameter
from secbeat.wire.decisions import DecisionRecord, Direction
from secbeat.wire.events import AuditEvent

_DEEPEST = 20_000  # audit events that one request looks through at most
_BACK = {
    "since": SINCE,
    "limit": LIMIT,
    "newest": integer("The same as limit", low=1, high=MAX_LIMIT),
    "after": AFTER,
}


class History:
    """Handlers of ``/api/v1/decisions`` and ``/api/v1/audit``: a page is the newest, read like a log."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def decisions(self, request: web.Request) -> web.Response:
        limit, cursor = _place(request)
        pool, since, directions = asked(request, "pool"), asked(request, "since"), asked(request, "direction")
        found = [
            one
            for one in sorted(self._context.control.decisions(pool, newest=_DEEPEST), key=lambda one: one.at)
            if (since is None or one.at >= since) and (directions is None or one.direction in directions)
        ]
        items, following = before(found, lambda one: one.at, limit=limit, cursor=cursor)
        return page(request, items, following=None if following is None else str(following))

    async def audit(self, request: web.Request) -> web.Response:
        limit, cursor = _place(request)
        wanted, window = _wanted(request), max(400, 4 * limit)
        while True:
            read = await self._context.audit.newest(window)
            found = [one for one in read if wanted(one)]
            items, following = before(found, lambda one: one.at, limit=limit, cursor=cursor)
            # A page that is not full yet may find the rest further back.
            if following is not None or len(read) < window or window >= _DEEPEST:
                return page(request, items, following=None if following is None else str(following))
            window *= 4


def _place(request: web.Request) -> tuple[int, Moment | None]:
    after = asked(request, "after")
    return asked(request, "newest") or asked(request, "limit"), None if after is None else Moment.read(after)


def _wanted(request: web.Request) -> Callable[[AuditEvent], bool]:
    who, since, refused = asked(request, "who"), asked(request, "since"), asked(request, "refused")

    def wanted(event: AuditEvent) -> bool:
        return (
            who in {None, event.who} and (since is None or event.at >= since) and (not refused or event.status >= 400)
        )

    return wanted


def routes(context: Context) -> list[Route]:
    """The routes of this module."""
    history = History(context)
    return [
        Route(method="GET", path="/api/v1/decisions", handler=history.decisions, scope="read",
              response=Page[DecisionRecord], headers=NEXT_LINK, answers={404: "There is no such pool"},
              summary="The newest decisions, oldest of them first; the next page is older",
              query={"pool": POOL, "direction": choices("Only in these directions", *get_args(Direction)), **_BACK}),
        Route(method="GET", path="/api/v1/audit", handler=history.audit, scope="read", response=Page[AuditEvent],
              headers=NEXT_LINK,
              summary="Who asked for which change: the newest, oldest of them first; the next page is older",
              query={"who": Parameter("Only this caller's", high=128), "refused": flag("Only what was not done"),
                     **_BACK}),
    ]  # fmt: skip
