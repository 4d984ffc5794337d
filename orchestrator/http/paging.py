"""Long lists in pages: a cursor names a place in an order that does not change, so it stays good while things come.

What has an id that sorts (an op_id by time, a node_id for ever) is continued behind that id. What has only a time
(decisions, audit events) is continued before a time and a count of the entries of that same millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar

from aiohttp import web

from secbeat.api import Parameter, asked, fail, integer
from secbeat.wire.base import Wire

T = TypeVar("T", bound=Wire)

MAX_LIMIT = 1000
LIMIT = integer("At most so many", low=1, high=MAX_LIMIT, default=100)
AFTER = Parameter("Continue behind this: `next` of a page, or what its Link header names", high=64)
NEXT_LINK = {"Link": 'The next page, rel="next"'}


class Page(Wire, Generic[T]):
    """A list of ours. ``next``: pass it as ``after`` to get what follows; null at the end."""

    items: list[T]
    next: str | None = None


class Moment(NamedTuple):
    """A cursor in time: before this millisecond, and so many of the entries of this millisecond."""

    millisecond: int
    place: int

    @classmethod
    def read(cls, text: str) -> Moment:
        """The cursor that a page gave.

        Raises:
            ApiError: 422 QUERY_INVALID.
        """
        first, _, second = text.partition("-")
        if not all(part.isascii() and part.isdigit() and len(part) < 16 for part in (first, second)):
            fail("QUERY_INVALID", 422, f"after is {text[:40]!r}; it must be `next` of an earlier page", field="after")
        return cls(int(first), int(second))

    def __str__(self) -> str:
        return f"{self.millisecond}-{self.place}"


def page(request: web.Request, records: Iterable[T], *, following: str | None = None) -> web.Response:
    """A list of ours; ``following`` is the cursor of the next page."""
    items = ",".join(record.model_dump_json() for record in records)
    following_text = "null" if following is None else f'"{following}"'
    text = f'{{"items":[{items}],"next":{following_text}}}'
    return web.Response(text=text, content_type="application/json", headers=link(request, following))


def link(request: web.Request, following: str | None) -> dict[str, str]:
    """The header that leads to the next page; a relative address, because a proxy may stand in front."""
    if following is None:
        return {}
    return {"Link": f'<{request.rel_url.update_query(after=following)}>; rel="next"'}


def by_id(request: web.Request, records: Iterable[T], key: Callable[[T], str]) -> web.Response:
    """The page that ``limit`` and ``after`` ask for, newest first; ``key`` sorts by time (op_id does)."""
    limit, after = asked(request, "limit"), asked(request, "after")
    found = sorted((one for one in records if after is None or key(one) < after), key=key, reverse=True)
    following = key(found[limit - 1]) if len(found) > limit else None
    return page(request, found[:limit], following=following)


def before(
    records: Sequence[T], moment: Callable[[T], datetime], *, limit: int, cursor: Moment | None
) -> tuple[list[T], Moment | None]:
    """The newest ``limit`` of ``records`` before ``cursor``, and the next cursor; oldest first, both in and out."""
    times = [_milliseconds(moment(one)) for one in records]
    end = len(records)
    if cursor is not None:
        end = sum(time < cursor.millisecond for time in times)
        end += min(cursor.place, sum(time == cursor.millisecond for time in times))
    begin = max(0, end - limit)
    if begin == 0:
        return list(records[:end]), None
    same = sum(time == times[begin] for time in times[:begin])
    return list(records[begin:end]), Moment(times[begin], same)


def _milliseconds(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
