"""What is refused or ends badly says so by its own code."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from secbeat.api import requests
from secbeat.wire.jobs import JobError

POOL = {"min": 1, "warmup_seconds": 0}


async def asked(service, method, path, body=None, scope="admin"):
    headers = {"Authorization": f"Bearer {scope}-token"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, f"{service.url}/api/v1/{path}", json=body) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def running(serve, **settings):
    service = await serve(pool=POOL, **settings)
    await service.world.until(lambda: len(service.world.active()) == 1, within=30)
    await service.world.until(lambda: service.world.operations()[0].ended, within=30)
    return service


def codes(service):
    return [op.error.code for op in service.world.operations("destroy") if op.error is not None]


async def test_a_join_secret_of_an_operation_that_has_ended(serve):
    service = await running(serve)
    (op,) = service.world.operations()
    status, problem = await asked(service, "POST", f"operations/{op.op_id}/join", scope="service")
    assert (status, problem["code"]) == (409, "OPERATION_CLOSED")


async def test_an_undrain_of_a_node_that_does_not_drain_and_of_one_that_cannot_be_reached(serve):
    service = await running(serve)
    node = service.world.active()[0]
    status, problem = await asked(service, "POST", f"nodes/{node}/undrain")
    assert (status, problem["code"]) == (409, "NOT_DRAINING")
    await asked(service, "POST", f"nodes/{node}/drain")
    await service.world.clock.advance(0.5)
    service.world.nodes.all[node].alive = False
    status, problem = await asked(service, "POST", f"nodes/{node}/undrain")
    assert (status, problem["code"]) == (503, "NODE_UNREACHABLE")


async def test_a_node_that_nobody_here_asked_for_is_not_drained(serve):
    service = await running(serve)
    node = service.world.active()[0]
    record = service.world.core.context.records.node(node).model_copy(update={"state": "quarantined"})
    service.world.core.registry.put(record)
    status, problem = await asked(service, "POST", f"nodes/{node}/drain")
    assert (status, problem["code"]) == (409, "NODE_NOT_OURS")
    assert json.loads((await service.secbeat("why", node, "-o", "json")).out)["blocked_by"] == ["NODE_NOT_OURS"]


async def test_a_job_that_has_ended_cannot_be_cancelled(serve):
    service = await running(serve)
    (op,) = service.world.operations()
    ran = await service.secbeat("jobs", "cancel", op.op_id)
    assert (ran.code, "error[JOB_ENDED]" in ran.err) == (3, True)


async def test_a_report_about_another_node_is_refused(serve):
    service = await running(serve)
    (op,) = service.world.operations()
    job = await service.world.core.job(op.op_id)
    with pytest.raises(Exception, match="JOB_MISMATCH"):
        await service.world.core.job_report(op.op_id, job.model_copy(update={"action": "destroy"}))


async def test_a_pause_in_both_directions_is_named_by_its_own_code(serve):
    service = await running(serve)
    await service.secbeat("pause", "default", "--for", "1h")
    await service.world.clock.advance(15)
    assert service.world.core.pool("default").decision.code == "PAUSED_BOTH"
    assert (await service.why()).line("fix") == "secbeat resume default"


async def test_a_node_that_outlives_its_drain_is_removed_with_the_reason(serve):
    service = await running(serve)
    node = next(iter(service.world.nodes.all.values()))
    node.drain_seconds = 100_000
    service.world.receiver.hold = asyncio.Event()
    await asked(service, "POST", f"nodes/{node.node_id}/drain")
    await service.world.until(lambda: codes(service) == ["DRAIN_OVERDUE"], within=300)
    service.world.receiver.hold.set()


async def test_a_teardown_that_does_not_end_in_time_says_so(serve):
    service = await running(serve)
    service.world.receiver.automatic = False
    await asked(service, "POST", f"nodes/{service.world.active()[0]}/drain")
    await service.world.until(lambda: "TEARDOWN_OVERDUE" in codes(service), within=3600, step=5)


async def test_a_teardown_whose_operation_was_lost_is_begun_anew(serve):
    service = await running(serve)
    service.world.receiver.automatic = False
    node = service.world.active()[0]
    _, op = await asked(service, "POST", f"nodes/{node}/drain")
    await service.world.clock.advance(10)
    await service.world.kill()
    await service.world.stored.delete(f"op.{op['op_id']}")
    core = await service.world.boot()
    await service.world.clock.advance(10)
    again = [one for one in core.operations() if one.node_id == node and one.action == "destroy"]
    assert [one.reason for one in again] == ["UNFINISHED_TEARDOWN"]


async def test_a_receiver_that_has_seen_a_higher_epoch_is_named_while_it_lasts(serve):
    def superseded(w):
        w.receiver.manner = "superseded"

    service = await serve(superseded, pool=POOL)
    await service.world.clock.advance(15)
    why = await service.why()
    assert why.first.startswith("default: holding at 1: EPOCH_SUPERSEDED: ")


async def test_a_failed_teardown_stands_first_in_why_of_the_node(serve):
    service = await running(serve)
    service.world.receiver.automatic = False
    node = service.world.active()[0]
    _, op = await asked(service, "POST", f"nodes/{node}/drain")
    await service.world.until(lambda: service.world.core.operation(op["op_id"]).state == "tearing_down", within=60)
    error = JobError(code="DESTROY_UNPROVED", message="the provider still lists it", retryable=False)
    await service.world.receiver.finish(op["op_id"], "failed", error=error)
    await service.world.clock.advance(3)
    assert "DESTROY_UNPROVED: the provider still lists it" in (await service.why(node)).first


async def test_a_body_that_does_not_come_is_not_waited_for(serve, monkeypatch):
    service = await running(serve)
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.05)
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = ["POST /api/v1/pools/default/scale HTTP/1.1", f"Host: {host}", "Authorization: Bearer admin-token",
            "Content-Type: application/json", "Content-Length: 100", "", ""]  # fmt: skip
    writer.write("\r\n".join(head).encode() + b"{")
    answer = await reader.read(4096)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_TOO_SLOW" in answer
