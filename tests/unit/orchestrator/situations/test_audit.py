"""Each call that changes something is one event of the audit: walked from the document that is served."""

from __future__ import annotations

import json

import aiohttp
import pytest

from orchestrator.testing import REGISTRATION
from secbeat import ids

# The scope that is one too low for a route, by the scope that it needs.
TOO_LOW = {"operate": "read", "admin": "operate", "service": "read"}
# Heartbeats are the nodes' pulse and no change that anybody asks for.
PULSE = {"/api/v1/nodes/heartbeat"}
BODIES = {
    "/api/v1/nodes/register": REGISTRATION,
    "/api/v1/pools/{name}/scale": {"size": 2},
    "/api/v1/nodes/{node_id}/protect": {"on": True},
    "/api/v1/rules/block_ip": {"ip": "203.0.113.7", "reason": "scan"},
}
# Routes that know what was before and what is after: all but those that make something new or refuse.
BEFORE = {"scale", "pause", "resume", "retire", "protect"}


async def call(service, method, path, body, scope):
    headers = {} if scope is None else {"Authorization": f"Bearer {scope}-token"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, service.url + path, json=body) as answer,
    ):
        return answer.status


async def document(service):
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/api/openapi.json") as answer:
        return await answer.json()


async def changing(service):
    """(method, path template, path, scope) of every route that may change something."""
    w = service.world
    values = {
        "{name}": "default",
        "{node_id}": w.active()[0],
        "{op_id}": w.operations()[0].op_id,
        "{ip}": "203.0.113.7",
    }
    for template, methods in (await document(service))["paths"].items():
        path = template
        for name, value in values.items():
            path = path.replace(name, value)
        assert "{" not in path, template
        for method, route in methods.items():
            if method not in {"get", "head"} and template not in PULSE:
                yield method.upper(), template, path, route.get("x-secbeat-scope")


@pytest.fixture
def pool():
    return {"min": 2, "max": 5, "warmup_seconds": 0}


async def test_every_changing_route_is_one_event_with_who_what_before_after_and_result(serve, pool):
    service = await serve(pool=pool)
    await service.world.until(lambda: len(service.world.active()) == 2, within=30)
    seen = set()
    async for method, template, path, scope in changing(service):
        before = {one.event_id for one in await service.audit.newest(1000)}
        status = await call(service, method, path, BODIES.get(template, {}), "admin" if scope != "service" else scope)
        (event,) = [one for one in await service.audit.newest(1000) if one.event_id not in before]
        assert (event.what, event.status) == (f"{method} {path}", status), template
        assert ids.check_op_id(event.event_id)
        assert event.who == {"service": "the-service", None: "loopback"}.get(scope, "the-admin"), template
        verb = template.rpartition("/")[2]
        if status < 400:
            removed = method == "DELETE"
            assert (event.after is not None) != removed, template
            assert (event.before is not None) == (removed or verb in BEFORE), template
        seen.add(verb)
    assert {*BEFORE, "drain", "undrain", "terminate", "register", "nodes", "join", "cancel", "block_ip"} <= seen


async def test_a_refusal_for_the_scope_is_one_event_under_the_callers_name(serve, pool):
    service = await serve(pool=pool)
    await service.world.until(lambda: len(service.world.active()) == 2, within=30)
    records = dict(service.world.stored.data)
    async for method, template, path, scope in changing(service):
        if scope is None:
            continue
        before = {one.event_id for one in await service.audit.newest(1000)}
        assert await call(service, method, path, BODIES.get(template, {}), TOO_LOW[scope]) == 403, template
        (event,) = [one for one in await service.audit.newest(1000) if one.event_id not in before]
        assert (event.who, event.scope, event.status) == (f"the-{TOO_LOW[scope]}", TOO_LOW[scope], 403), template
        assert (event.before, event.after) == (None, None)
    assert dict(service.world.stored.data) == records, "nothing was done"


async def test_reads_leave_no_event(serve, pool):
    service = await serve(pool=pool)
    for template, methods in (await document(service))["paths"].items():
        if "get" in methods and "{" not in template and template != "/api/v1/events":
            await call(service, "GET", template, None, "admin")
    assert await service.audit.newest(10) == []


async def test_the_command_lists_and_shows_them(serve, pool):
    service = await serve(pool=pool)
    await service.world.until(lambda: len(service.world.active()) == 2, within=30)
    assert (await service.secbeat("scale", "default", "3", "--for", "1h", scope="operate")).code == 0
    refused = await service.secbeat("scale", "default", "4", scope="read")
    assert refused.code == 4
    listed = await service.secbeat("audit")
    assert listed.out.splitlines()[0].split()[:3] == ["EVENT", "AGE", "WHO"]
    assert [line.split()[2] for line in listed.out.splitlines()[1:]] == ["the-operate", "the-read"]
    rows = json.loads((await service.secbeat("audit", "-o", "json")).out)
    short = rows[0]["event_id"][-8:]
    shown = await service.secbeat("audit", "show", rows[0]["event_id"])
    assert shown.first == "the-operate: POST /api/v1/pools/default/scale: done (200)"
    assert "before.override" in shown.out
    assert "after.override.size" in shown.out
    ambiguous = await service.secbeat("audit", "show", rows[0]["event_id"][:2])
    assert (ambiguous.code, "error[ID_AMBIGUOUS]" in ambiguous.err) == (2, True)
    assert all(row["event_id"] in ambiguous.err for row in rows)
    assert short
