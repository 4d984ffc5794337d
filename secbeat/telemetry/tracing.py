"""Traces across services, from the decision to the playbook's tasks.

An operation outlives processes, so no span is kept open in memory: each is told when it has ended, with its start,
from records. Ids of spans follow from ids of what they describe, so whoever takes over after a crash can close the
span that another process began, and both mean the same one.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from typing import Literal, Protocol

from secbeat.errors import ConfigError
from secbeat.settings import TelemetrySettings
from secbeat.telemetry import context

log = logging.getLogger("telemetry")

Kind = Literal["internal", "client", "server"]
Value = str | int | float | bool

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


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


def open_tracing(service: str, settings: TelemetrySettings, environ: Mapping[str, str] | None = None) -> Tracing:
    """Traces as ``OTEL_*`` variables and ``[telemetry]`` ask for; OFF, and nothing imported, if they do not.

    Raises:
        ConfigError: ``telemetry.otlp_endpoint`` is set and the extra ``telemetry`` is not installed, or the variables
            contradict each other (CONFIG_INVALID).
    """
    given = os.environ if environ is None else environ
    wanted = settings.otlp_endpoint is not None or any(given.get(name) for name in _ENDPOINTS)
    refused = given.get("OTEL_SDK_DISABLED", "").lower() == "true" or given.get("OTEL_TRACES_EXPORTER") == "none"
    if not wanted or refused:
        return OFF
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        why = "traces are asked for, and OpenTelemetry is not installed"
        if settings.otlp_endpoint is not None:
            raise ConfigError(
                "CONFIG_INVALID", why=f"telemetry.otlp_endpoint: {why}", fix="pip install 'secbeat[telemetry]'"
            )
        # The variables may be meant for other programs of this machine.
        log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set: %s", why, extra={"action": "no_traces"})
        return OFF
    from secbeat.telemetry.otel import OtelTracing  # noqa: PLC0415 - costs 150 ms and the extra

    try:
        tracing = OtelTracing(service, settings.otlp_endpoint, given)
    except ValueError as error:
        raise ConfigError(
            "CONFIG_INVALID", why=f"OpenTelemetry refuses its OTEL_… variables: {error}", fix="env | grep ^OTEL_"
        ) from None
    protocol = given.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or given.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {None, "", "http/protobuf"}:
        log.warning("OTLP is spoken as http/protobuf, not as %s", protocol, extra={"action": "traces_protocol"})
    log.info("Traces go to %s", tracing.endpoint, extra={"action": "traces"})
    return tracing
