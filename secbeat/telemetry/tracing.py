"""Traces across services, from the decision to the playbook's tasks.

An operation outlives processes, so no span is kept open in memory: each is told when it has ended, with its start,
from records. Ids of spans follow from ids of what they describe, so whoever takes over after a crash can close the
span that another process began, and both mean the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from secbeat.telemetry import context

Kind = Literal["internal", "client", "server"]
Value = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Span:
    """A span that has ended. ``traceparent``: its own context. ``error``: a code or short sentence, never a secret."""

    traceparent: str
    parent_id: str | None
    name: str
    start: datetime
    end: datetime
    kind: Kind = "internal"
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str | None = None


class Tracing(Protocol):
    """Where spans go."""

    def begin(self) -> str | None:
        """The context of a new trace's first span; None: this service makes no traces."""
        ...

    def record(self, span: Span) -> None:
        """Tell of a span; returns at once. What no collector takes is dropped."""
        ...

    async def close(self) -> None:
        """Send what waits, for three seconds at most."""
        ...


class NoTracing:
    """Makes no traces, and tells of none."""

    def begin(self) -> str | None:
        return None

    def record(self, span: Span) -> None:
        del span

    async def close(self) -> None:
        """Nothing waits."""


OFF: Tracing = NoTracing()


def span_id(*parts: object) -> str:
    """The id of the span that these ids describe."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


def beneath(traceparent: str, *parts: object) -> str:
    """The context of a span beneath ``traceparent``, named by ids."""
    return context.child(traceparent, span_id(*parts))


def id_of(traceparent: str) -> str:
    """The span id in a context."""
    return traceparent.split("-")[2]
