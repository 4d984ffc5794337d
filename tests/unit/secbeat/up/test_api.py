"""Resuming and retiring, against a small API of the same shape."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from secbeat.errors import UnreachableError
from secbeat.settings import load
from secbeat.up import retiring
from secbeat.up.api import Api, resume_retired


class Service:
    """Answers like the orchestrator; nodes leave one by one when their pool is retired."""

    def __init__(self):
        self.pools = {}
        self.nodes = []
        self.operations = []
        self.asked = []
        self.stuck = False
        self.failing = 0
        self.url = ""

    def pool(self, name, **more):
        self.pools[name] = {
            "name": name, "retired": False, "pause": None, "override": None, "blueprint": "default", "mode": "active",
            **more,
        }  # fmt: skip

    async def get(self, request):
        what = request.match_info["what"]
        if what == "pools":
            return web.json_response({"items": list(self.pools.values())})
        if what == "nodes":
            found = list(self.nodes)
            if self.nodes and not self.stuck and any(p["retired"] for p in self.pools.values()):
                self.nodes.pop(0)
            return web.json_response(found)
        return web.json_response({"items": self.operations})

    async def post(self, request):
        name, verb = request.match_info["name"], request.match_info["verb"]
        if self.failing:
            self.failing -= 1
            return web.Response(status=503)
        self.asked.append((name, verb, await request.json(), request.headers["Authorization"]))
        if verb == "resume":
            self.pools[name].update(retired=False, pause=None, override=None)
        if verb == "retire":
            self.pools[name]["retired"] = True
        return web.json_response(self.pools[name])


@pytest.fixture
async def service():
    found = Service()
    app = web.Application()
    app.router.add_get("/api/v1/{what}", found.get)
    app.router.add_post("/api/v1/pools/{name}/{verb}", found.post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def api(service):
    found = Api(service.url, "the-token")
    yield found
    await found.close()


SETTINGS = load(environ={}).settings


async def test_only_retired_pools_are_resumed(service, api):
    service.pool("web", retired=True)
    service.pool("batch")
    assert await resume_retired(api) == ["web"]
    assert service.asked == [("web", "resume", {}, "Bearer the-token")]


async def test_a_pause_and_a_manual_size_outlive_the_resume(service, api):
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    pause = {"direction": "in", "until": until, "by": "me", "reason": "upgrade"}
    service.pool("web", retired=True, pause=pause, override={"size": 4, "until": None})
    service.pool("old", retired=True, pause={**pause, "until": past})
    await resume_retired(api)
    bodies = {(name, verb): body for name, verb, body, _ in service.asked}
    assert bodies["web", "pause"]["for_seconds"] == pytest.approx(3600, abs=60)
    assert (bodies["web", "pause"]["direction"], bodies["web", "pause"]["reason"]) == ("in", "upgrade")
    assert bodies["web", "scale"] == {"size": 4, "for_seconds": None}
    assert ("old", "pause") not in bodies


async def test_retiring_waits_until_the_nodes_and_operations_are_gone(service, api):
    service.pool("default")
    service.nodes = [{"pool": "default", "state": "active", "node_id": str(n), "name": None} for n in range(3)]
    seen = []
    assert await retiring.retire(api, SETTINGS, lambda nodes, operations: seen.append((nodes, operations))) == []
    assert seen == [(3, 0), (2, 0), (1, 0)]


async def test_only_pools_with_machines_here_are_retired(service, api):
    service.pool("default")
    service.pool("vms", blueprint="qemu")
    service.nodes = [{"pool": "vms", "state": "active", "node_id": "1", "name": None}]
    service.stuck = True
    assert await retiring.retire(api, SETTINGS) == []
    assert [name for name, *_ in service.asked] == ["default"]


async def test_nodes_that_do_not_leave_are_named_in_the_end(service, api, monkeypatch):
    monkeypatch.setattr(retiring, "_TEARDOWN_SECONDS", -59.7)
    service.pool("default")
    service.nodes = [{"pool": "default", "state": "failed", "node_id": "1", "name": "default-1"}]
    service.stuck = True
    assert await retiring.retire(api, SETTINGS) == ["default-1"]


async def test_an_observed_pool_is_left_alone_and_named_since_nothing_may_take_its_nodes_down(service, api):
    service.pool("default", mode="observe")
    service.pool("web")
    service.nodes = [{"node_id": "a", "name": "default-1", "pool": "default", "state": "active"}]
    service.stuck = True
    named = []
    async with asyncio.timeout(5):
        assert await retiring.retire(api, SETTINGS, on_observed=named.append) == []
    assert named == ["default"]
    assert [(name, verb) for name, verb, *_ in service.asked] == [("web", "retire")]


async def test_nodes_that_come_back_again_and_again_do_not_keep_the_end_waiting(service, api, monkeypatch):
    monkeypatch.setattr(retiring, "_TEARDOWN_SECONDS", -59.7)
    service.pool("default")
    service.stuck = True

    def another(nodes, _operations):
        service.nodes = [{"pool": "default", "state": "active", "node_id": str(n), "name": None} for n in range(9)]
        del service.nodes[1 + nodes % 3 :]

    another(0, 0)
    async with asyncio.timeout(20):
        assert await retiring.retire(api, SETTINGS, another) != []


async def test_an_orchestrator_that_is_just_starting_again_is_asked_again(service, api):
    service.pool("default")
    service.failing = 1
    async with asyncio.timeout(20):
        assert await retiring.retire(api, SETTINGS) == []
    assert service.pools["default"]["retired"]


async def test_an_answer_that_is_none_is_an_error_with_the_route(api):
    with pytest.raises(UnreachableError) as caught:
        await api.get("/nowhere")
    assert "/nowhere answered 404" in caught.value.why


async def test_nobody_there_is_not_ready():
    api = Api("http://127.0.0.1:1", "t")
    assert await api.ready("http://127.0.0.1:1") is False
    await api.close()
