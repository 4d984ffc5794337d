"""Calls on nodes: the port, the NATS command in its place, and the addresses that are never dialled."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network

import pytest
from aiohttp import web

from orchestrator.operations.addresses import check, resolve, url_host, within
from orchestrator.operations.management import NodeClient, Target
from secbeat import ids, subjects
from secbeat.errors import RefusedError
from secbeat.testing import MemoryMessaging
from secbeat.wire.control import ResumeRequest, TerminateRequest

LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
NODE = ids.new_node_id()
REQUEST = TerminateRequest(reason="X", timestamp="2026-01-01T00:00:00Z", grace_period_seconds=60)
ACCEPTED = {"success": True, "message": "m", "grace_period_seconds": 45}


@asynccontextmanager
async def node(handler, networks=LOOPBACK):
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    messaging = MemoryMessaging()
    client = NodeClient(networks=lambda: networks, messaging=messaging)
    try:
        yield client, Target(NODE, "127.0.0.1", port, port, "s3cret"), messaging
    finally:
        await client.close()
        await runner.cleanup()


async def test_terminate_posts_the_guides_body_with_the_nodes_token():
    seen = {}

    async def handler(request):
        seen.update(path=request.path, auth=request.headers["Authorization"], body=await request.json())
        return web.json_response(ACCEPTED, status=202)

    async with node(handler) as (client, target, _):
        reply = await client.terminate(target, REQUEST)
    assert (reply.outcome, reply.grace_seconds) == ("accepted", 45.0)
    assert seen == {
        "path": "/control/terminate",
        "auth": "Bearer s3cret",
        "body": {"reason": "X", "timestamp": "2026-01-01T00:00:00Z", "grace_period_seconds": 60},
    }


@pytest.mark.parametrize("status", [401, 404, 409, 422, 500, 307])
async def test_any_other_answer_is_a_refusal_and_nats_is_not_tried(status):
    async def handler(_request):
        return web.Response(status=status, headers={"Location": "/x"})

    async with node(handler) as (client, target, messaging):
        assert (await client.terminate(target, REQUEST)).outcome == "refused"
        assert (await client.resume(target, ResumeRequest())).outcome == "refused"
        assert messaging.published == []


@pytest.mark.parametrize("disabled", [True, False])
async def test_the_nats_command_stands_in_for_a_port_that_is_disabled_or_closed(disabled, unused_tcp_port):
    messaging = MemoryMessaging()
    asked = []

    async def responder(subject, payload):
        asked.append((subject, json.loads(payload)["grace_period_seconds"]))
        return json.dumps(ACCEPTED).encode()

    await messaging.respond(subjects.command(NODE, "terminate"), responder)
    client = NodeClient(networks=lambda: LOOPBACK, messaging=messaging)
    target = Target(NODE, "127.0.0.1", 0 if disabled else unused_tcp_port, unused_tcp_port, "t")
    reply = await client.terminate(target, REQUEST)
    await client.close()
    assert (reply.outcome, asked) == ("accepted", [(subjects.command(NODE, "terminate"), 60)])


@pytest.mark.parametrize("answer", [b"nonsense", b"[]", b'{"success": false, "message": "wrong node"}', b""])
async def test_a_nats_answer_that_is_not_success_is_a_refusal(answer):
    messaging = MemoryMessaging()

    async def responder(_subject, _payload):
        return answer

    await messaging.respond(subjects.command(NODE, "terminate"), responder)
    client = NodeClient(networks=lambda: LOOPBACK, messaging=messaging)
    assert (await client.terminate(Target(NODE, None, 0, 8443, None), REQUEST)).outcome == "refused"


async def test_nobody_anywhere_is_unreachable(unused_tcp_port):
    client = NodeClient(networks=lambda: LOOPBACK, messaging=MemoryMessaging())
    target = Target(NODE, "127.0.0.1", unused_tcp_port, unused_tcp_port, "t")
    assert (await client.terminate(target, REQUEST)).outcome == "unreachable"
    assert await client.answers(target) is False
    assert await client.listens(target) is False
    await client.close()


async def test_a_frozen_process_listens_but_does_not_answer():
    import socket

    with socket.socket() as frozen:  # the kernel accepts, nobody reads
        frozen.bind(("127.0.0.1", 0))
        frozen.listen()
        port = frozen.getsockname()[1]
        client = NodeClient(networks=lambda: LOOPBACK, messaging=MemoryMessaging())
        target = Target(NODE, "127.0.0.1", port, port, "t")
        assert await client.listens(target) is True
        assert await client.answers(target) is False
        await client.close()


async def test_any_http_answer_is_a_sign_of_life():
    async def handler(_request):
        return web.Response(status=401)

    async with node(handler) as (client, target, _):
        assert await client.answers(target) is True


async def test_an_address_outside_node_networks_is_not_dialled():
    hit = []

    async def handler(_request):
        hit.append(1)
        return web.json_response(ACCEPTED)

    async with node(handler, networks=[ip_network("10.0.0.0/8")]) as (client, target, _):
        reply = await client.terminate(target, REQUEST)
        assert (reply.outcome, hit) == ("unreachable", [])
        assert "node_networks" in reply.sentence
        assert await client.listens(target) is False


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "::ffff:10.0.0.1", "8.8.8.8"],
)
def test_these_are_refused_even_where_a_network_names_them(address):
    networks = LOOPBACK if address == "8.8.8.8" else [ip_network("0.0.0.0/0"), ip_network("::/0")]
    with pytest.raises(RefusedError) as refused:
        check(ip_address(address), networks)
    assert refused.value.code == "ADDRESS_REFUSED"


async def test_names_are_resolved_once_and_the_address_is_checked():
    assert str(await resolve("localhost", LOOPBACK)) in {"127.0.0.1", "::1"}
    with pytest.raises(RefusedError):
        await resolve("localhost", [ip_network("10.0.0.0/8")])
    with pytest.raises(RefusedError):
        await resolve("", LOOPBACK)


def test_ipv6_stands_in_brackets_in_a_url():
    assert url_host(ip_address("::1")) == "[::1]"
    assert within("::1", LOOPBACK)
    assert not within("nonsense", LOOPBACK)
