"""Traces by OpenTelemetry's SDK, sent as OTLP over HTTP. The only module that imports it.

The SDK's own spans live in one process from start to end. Ours are told when they have ended, with ids that were
given before, so the SDK's finished form of a span is made directly; resource, sampler, batches and exporter are the
SDK's, with everything that ``OTEL_*`` sets for them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from secbeat import __version__
from secbeat.telemetry.tracing import Span

_CLOSE_SECONDS = 3.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT, "server": SpanKind.SERVER}
_SCOPE = InstrumentationScope("secbeat", __version__)


class OtelTracing:
    """Implements ``Tracing``. ``endpoint``: the collector's base URL; None: as ``OTEL_*`` says."""

    def __init__(self, service: str, endpoint: str | None, environ: Mapping[str, str]) -> None:
        attributes: dict[str, str] = {"service.version": __version__}
        if not (environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")):
            attributes["service.name"] = f"secbeat-{service}"
        # One line for a batch that was lost, none for each attempt to send it.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._resource, self._sampler, self._ids = provider.resource, provider.sampler, RandomIdGenerator()
        exporter = OTLPSpanExporter(endpoint=None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces")
        self._batches = BatchSpanProcessor(exporter)
        where = endpoint or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
        parts = urlsplit(where)
        self.endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def begin(self) -> str | None:
        trace_id, span_id = self._ids.generate_trace_id(), self._ids.generate_span_id()
        kept = self._sampler.should_sample(None, trace_id, "operation").decision is Decision.RECORD_AND_SAMPLE
        return f"00-{trace_id:032x}-{span_id:016x}-{int(kept):02x}"

    def record(self, span: Span) -> None:
        _, trace, own, flags = span.traceparent.split("-")
        trace_id, options = int(trace, 16), TraceFlags(int(flags, 16))
        parent = None
        if span.parent_id is not None:
            parent = SpanContext(trace_id, int(span.parent_id, 16), is_remote=False, trace_flags=options)
        # The batches drop what is not sampled.
        self._batches.on_end(
            ReadableSpan(
                name=span.name,
                context=SpanContext(trace_id, int(own, 16), is_remote=False, trace_flags=options),
                parent=parent,
                resource=self._resource,
                attributes=span.attributes,
                kind=_KINDS[span.kind],
                status=Status(StatusCode.OK if span.error is None else StatusCode.ERROR, span.error),
                start_time=_nanoseconds(span.start),
                end_time=_nanoseconds(max(span.end, span.start)),
                instrumentation_scope=_SCOPE,
            )
        )

    async def close(self) -> None:
        # A collector that is away must not hold up the end of a service: the thread is left behind.
        ending = threading.Thread(target=self._batches.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _CLOSE_SECONDS)


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
