"""An operation's spans: from its records, so a crash in between loses none."""

from __future__ import annotations

import json
from itertools import pairwise

from aiohttp import web

from orchestrator.operations.webhook import WebhookClient
from orchestrator.testing import world
from secbeat.clock import SystemClock
from secbeat.telemetry import context
from secbeat.telemetry.tracing import id_of
from secbeat.testing.tracing import MemoryTracing
from secbeat.wire.jobs import JobError
from secbeat.wire.pools import ScaleRequest


def ended(one, action):
    return [op for op in one.operations(action) if op.ended]


async def grown(one, tracing):
    """A second node, asked for by hand, so that its operation is traced."""
    one.core.context.tracing = tracing
    await one.until(lambda: len(one.active()) == 1)
    await one.core.scale("default", ScaleRequest(size=2, for_seconds=600), by="test")


async def test_a_scale_up_is_one_trace_with_its_webhook_and_its_stages():
    tracing = MemoryTracing()
    async with world(pool={"min": 1, "max": 2}) as one:
        await grown(one, tracing)
        await one.until(lambda: len(ended(one, "create")) == 2)
        op = one.operations("create")[-1]
        (root,) = tracing.named("scale up")
        assert (root.traceparent, root.parent_id, root.error) == (op.traceparent, None, None)
        assert (root.start, root.end) == (op.created_at, op.ended_at)
        assert root.attributes["secbeat.decision.code"] == op.reason == "OVERRIDE"
        (webhook,) = tracing.named("webhook create")
        assert (webhook.kind, webhook.parent_id) == ("client", id_of(op.traceparent))
        assert webhook.attributes["secbeat.webhook.outcome"] == "tracked"
        body = next(call.body for call in one.receiver.calls if call.op_id == op.op_id)
        assert body["operation"]["traceparent"] == webhook.traceparent
        stages = [span for span in tracing.spans if span.name.startswith("stage ")]
        assert [span.attributes["secbeat.stage"] for span in stages] == [stage.name for stage in op.stages]
        assert stages[0].start == root.start
        assert all(before.end == after.start for before, after in pairwise(stages))
        assert {context.parse(span.traceparent)[0] for span in tracing.spans} == {op.traceparent.split("-")[1]}


async def test_the_span_of_a_crashed_leader_is_closed_by_the_next_one():
    before, after = MemoryTracing(), MemoryTracing()
    one = world(pool={"min": 1, "max": 2})
    async with one:
        one.core.context.tracing = before
        await one.until(lambda: len(one.active()) == 1)
        (node,) = one.nodes.all.values()
        node.drain_seconds = 30.0
        op = await one.core.drain(node.node_id, reason="MANUAL", by="test")
        await one.clock.advance(2.0)
        await one.restart()
        one.core.context.tracing = after
        await one.until(lambda: one.core.operation(op.op_id).ended)
        assert before.named("scale down") == []
        (root,) = after.named("scale down")
        assert (root.traceparent, root.start) == (op.traceparent, op.created_at)
        assert root.error is None


async def test_a_failed_operation_ends_its_span_and_the_stage_that_broke_with_the_code():
    tracing = MemoryTracing()
    async with world(pool={"min": 1, "max": 2}) as one:
        await one.until(lambda: len(one.active()) == 1)
        one.receiver.automatic = False
        await grown(one, tracing)
        await one.until(lambda: one.operations("create")[-1].state == "accepted")
        op = one.operations("create")[-1]
        error = JobError(code="PLAYBOOK_FAILED", message="the secret is hunter2")
        await one.receiver.finish(op.op_id, "failed", error=error)
        await one.until(lambda: tracing.named("scale up"))
        (root,) = tracing.named("scale up")
        broken = [span.name for span in tracing.spans if span.error]
        assert root.error == "PLAYBOOK_FAILED"
        assert broken == ["scale up", "stage engine"]
        assert "hunter2" not in repr(tracing.spans), "what others wrote stays out of the spans"


async def test_without_traces_nothing_is_told_and_nothing_travels():
    async with world(pool={"min": 1, "max": 2}) as one:
        await one.until(lambda: len(ended(one, "create")) == 1)
        assert one.operations("create")[0].traceparent is None
        assert "traceparent" not in one.receiver.calls[0].body["operation"]


async def test_the_header_carries_the_context_for_receivers_of_others():
    seen = []

    async def take(request):
        seen.append((request.headers.get("traceparent"), await request.read()))
        return web.json_response({}, status=202)

    app = web.Application()
    app.router.add_post("/provision", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = WebhookClient(clock=SystemClock(), timeout_seconds=lambda: 5.0)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/provision"
    begun = MemoryTracing().begin()
    for traceparent in (begun, None):
        await client.send(url, op_id="op", body=json.dumps({}).encode(), traceparent=traceparent)
    await client.close()
    await runner.cleanup()
    assert [header for header, _ in seen] == [begun, None]
