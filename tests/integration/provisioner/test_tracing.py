"""The spans of a job whose provisioner is killed: closed, with an error, by the process that takes the job over."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SLOW = "Wait for a long time"
TRACE, WEBHOOK = "a" * 32, "b" * 16


@pytest.fixture
async def spans():
    """What a collector got, and where it listens."""
    found = []

    async def take(request):
        for resource in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            for scope in resource.scope_spans:
                found.extend(scope.spans)
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield found, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def facts(span):
    error = span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else None
    return span.name, span.parent_span_id.hex(), error


async def test_a_killed_jobs_spans_are_closed_by_whoever_takes_it_over(make_service, spans):
    found, url = spans
    service = make_service(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="60000")
    tasks = service.state.parent / "project/playbooks/tasks/slow.yml"
    tasks.write_text(f"- name: {SLOW}\n  ansible.builtin.shell: echo $TRACEPARENT >> {service.state}/told; sleep 300\n")
    await service.start()
    operation = service.operation(
        deadline=(datetime.now(UTC) + timedelta(seconds=300)).isoformat(), traceparent=f"00-{TRACE}-{WEBHOOK}-01"
    )
    await service.send(operation, reason="SLOW")
    await service.reaches(operation["op_id"], SLOW)

    async def told():
        return (service.state / "told").exists() and (service.state / "told").read_text()

    first = (await service.until(told, "the task runs")).strip()
    await service.stop(signal.SIGKILL)
    assert found == [], "nothing had been sent when it was killed"
    tasks.write_text(f"- name: Quick now\n  ansible.builtin.shell: echo $TRACEPARENT >> {service.state}/told\n")
    await service.start()
    assert (await service.ended(operation["op_id"])).state == "succeeded"
    await service.stop()  # sends what waits

    assert {span.trace_id.hex() for span in found} == {TRACE}
    by_name = {span.name: span for span in found}
    job, attempts = by_name["job create"], [by_name["attempt 1"], by_name["attempt 2"]]
    assert facts(job) == ("job create", WEBHOOK, None)
    assert [facts(one)[1:] for one in attempts] == [(job.span_id.hex(), "JOB_CRASHED"), (job.span_id.hex(), None)]
    assert facts(by_name[SLOW]) == (SLOW, attempts[0].span_id.hex(), "JOB_CRASHED")
    assert facts(by_name["Quick now"]) == ("Quick now", attempts[1].span_id.hex(), None)
    assert [span.name for span in found].count("Count the run") == 2, "what the dead attempt had done is told as well"
    assert first == f"00-{TRACE}-{attempts[0].span_id.hex()}-01"
    assert (service.state / "told").read_text().split()[-1] == f"00-{TRACE}-{attempts[1].span_id.hex()}-01"
    assert attempts[0].start_time_unix_nano < attempts[0].end_time_unix_nano <= attempts[1].end_time_unix_nano
    assert len({span.span_id for span in found}) == len(found)


async def test_without_a_collector_a_job_has_no_trace_and_its_playbook_none_to_continue(make_service):
    assert not [name for name in os.environ if name.startswith("OTEL_")]
    service = make_service()
    (service.state.parent / "project/playbooks/tasks/ok.yml").write_text(
        f'- name: Tell\n  ansible.builtin.shell: echo "[$TRACEPARENT]" > {service.state}/told\n'
    )
    await service.start()
    operation = service.operation()
    await service.send(operation)
    assert (await service.ended(operation["op_id"])).traceparent is None
    assert (service.state / "told").read_text() == "[]\n"
