"""A collector that takes OTLP over HTTP, and a whole instance that sends its traces there."""

from __future__ import annotations

import asyncio
import gzip
import os
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

# pytest-asyncio would else ask Python 3.11 for a loop that nobody closes.
asyncio.set_event_loop(None)


@dataclass(frozen=True)
class Seen:
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    end: float
    error: str | None
    attributes: dict[str, object]


@dataclass
class Collector:
    """What came in, decoded."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.raw.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans.extend(seen(str(about["service.name"]), span) for span in scope.spans)
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]


def attributes(pairs) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def seen(service, span) -> Seen:
    return Seen(
        service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9,
        (span.status.message or "error") if span.status.code == span.status.STATUS_CODE_ERROR else None,
        attributes(span.attributes),
    )  # fmt: skip


@pytest.fixture
async def collector(monkeypatch):
    made = Collector()
    app = web.Application(client_max_size=16 << 20)
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    yield made
    await runner.cleanup()


@pytest.fixture
def soon():
    """Wait until a condition, plain or async, gives something true; that is returned."""

    async def wait(condition, seconds=90.0):
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.05)

    return wait
