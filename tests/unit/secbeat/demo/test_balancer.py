from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from secbeat.demo.load import Backend, Balancer


def node(address="127.0.1.10", *, name="demo-1", state="active"):
    return {"name": name, "address": address, "proxy_port": 8443, "state": state}


def healthy(*urls):
    balancer = Balancer()
    balancer.backends = {url: Backend(url, healthy=True) for url in urls}
    return balancer


def test_without_a_healthy_node_nothing_is_picked():
    balancer = Balancer()
    assert balancer.pick() is None
    balancer.update([node()])
    assert balancer.pick() is None, "a node is healthy once its check has said so"


def test_healthy_nodes_take_turns():
    balancer = healthy("a", "b", "c")
    balancer.backends["b"].healthy = False
    assert sorted(balancer.pick().url for _ in range(6)) == ["a"] * 3 + ["c"] * 3


def test_a_node_that_is_not_listed_any_more_gets_no_request_and_keeps_its_figures():
    balancer = Balancer()
    balancer.update([node()])
    (backend,) = balancer.backends.values()
    backend.healthy, backend.served = True, 7
    balancer.update([])
    assert balancer.pick() is None
    assert balancer.backends[backend.url].served == 7


@pytest.mark.parametrize(
    "listed",
    [
        node(name=None),  # its machine is not reported yet: the address is where it registered from
        node(address=None),
        node(state="booting"),
        node(state="failed"),
    ],
)
def test_a_node_without_a_reported_machine_or_out_of_service_is_no_backend(listed):
    balancer = Balancer()
    balancer.update([listed])
    assert balancer.backends == {}


async def test_one_check_takes_a_node_out_and_one_brings_it_back():
    answers = []

    async def ready(_request):
        return web.Response(status=answers[-1])

    app = web.Application()
    app.router.add_get("/.secbeat/ready", ready)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        balancer = healthy(str(server.make_url("")).rstrip("/"))
        for status, expected in ((503, False), (200, True), (404, False)):
            answers.append(status)
            await balancer.check(session)
            (backend,) = balancer.backends.values()
            assert backend.healthy is expected


async def test_a_node_that_does_not_answer_is_out():
    async with aiohttp.ClientSession() as session:
        balancer = healthy("http://127.0.0.1:9")
        await balancer.check(session)
    assert balancer.pick() is None


async def test_a_node_that_is_gone_gets_no_request_although_its_address_answers_for_somebody_else():
    async def ready(_request):
        return web.Response()

    app = web.Application()
    app.router.add_get("/.secbeat/ready", ready)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        balancer = healthy(str(server.make_url("")).rstrip("/"))
        balancer.update([])
        await balancer.check(session)
        assert balancer.pick() is None
