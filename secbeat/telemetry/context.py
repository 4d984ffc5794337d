"""W3C trace context as plain text, without any tracing library: what records, headers and log lines carry."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar

_TRACEPARENT = re.compile(r"^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$")

_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def parse(traceparent: str | None) -> tuple[str, str] | None:
    """Trace id and span id, in hex; None for what is no trace context of version 00."""
    found = _TRACEPARENT.match(traceparent or "")
    return None if found is None else (found[1], found[2])


def checked(traceparent: str | None) -> str | None:
    """The same text if it is a trace context, else None: what comes over the wire is data."""
    return traceparent if parse(traceparent) is not None else None


def sampled(traceparent: str | None) -> bool:
    """Whether whoever began the trace keeps it."""
    found = _TRACEPARENT.match(traceparent or "")
    return found is not None and bool(int(found[3], 16) & 1)


def child(traceparent: str, span_id: str) -> str:
    """The context of a span of the same trace."""
    version, trace_id, _, flags = traceparent.split("-")
    return f"{version}-{trace_id}-{span_id}-{flags}"


def exemplar(traceparent: str | None) -> dict[str, str] | None:
    """The labels of an exemplar; shown in the OpenMetrics form alone."""
    found = parse(traceparent)
    return None if found is None else {"trace_id": found[0]}


def current() -> str | None:
    """The trace context of the work that is being done now."""
    return _current.get()


@contextlib.contextmanager
def within(traceparent: str | None) -> Iterator[None]:
    """What is logged inside belongs to this trace; None: to none."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)
