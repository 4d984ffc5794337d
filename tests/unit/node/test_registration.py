"""From which address a node calls: the orchestrator dials where a registration came from."""

from __future__ import annotations

import pytest
from aiohttp import web

from node.registration import Orchestrator, Unreachable, source_address
from secbeat.api import listen


@pytest.mark.parametrize(
    ("listens_on", "url", "source"),
    [
        ("127.0.0.2", "http://127.0.0.1:3030", ("127.0.0.2", 0)),
        ("127.0.0.2", "http://localhost:3030", ("127.0.0.2", 0)),
        ("127.0.0.2", "http://10.0.0.5:3030", None),
        ("0.0.0.0", "http://127.0.0.1:3030", None),
        ("10.0.0.7", "http://10.0.0.5:3030", None),
        ("localhost", "http://127.0.0.1:3030", None),
        ("127.0.0.2", "http://orchestrator:3030", None),
    ],
)
def test_only_between_loopback_addresses_the_source_is_chosen(listens_on, url, source):
    assert source_address(listens_on, url) == source


async def test_a_node_on_a_loopback_address_of_its_own_calls_from_there():
    peers = []

    async def seen(request: web.Request) -> web.Response:
        peers.append(request.remote)
        return web.Response(status=503)

    app = web.Application()
    app.router.add_post("/api/v1/nodes/register", seen)
    listener = await listen(app, "127.0.0.1:0")
    try:
        for own in ("127.0.0.2", "0.0.0.0"):
            orchestrator = Orchestrator(listener.url, public_ip="127.0.0.1", listens_on=own)
            with pytest.raises(Unreachable):
                await orchestrator.register(None)
            await orchestrator.close()
    finally:
        await listener.close()
    assert peers == ["127.0.0.2", "127.0.0.1"]
