"""Listening, and the fast lane in front of an application."""

from __future__ import annotations

import socket

import aiohttp
import pytest
from aiohttp import web

from secbeat.api import listen
from secbeat.api.fast import LANES
from secbeat.errors import ConfigError
from secbeat.settings.model import TlsSettings


async def hello(request):
    return web.Response(text="the whole way: " + await request.text())


def application(lane=None):
    app = web.Application()
    app.router.add_post("/x", hello)
    app.router.add_get("/x", hello)
    if lane is not None:
        app[LANES] = {("POST", "/x"): lane}
    return app


async def post(listener, body=b"body", method="POST"):
    async with aiohttp.ClientSession() as session, session.request(method, f"{listener.url}/x", data=body) as response:
        return await response.text()


async def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            await listen(application(), f"127.0.0.1:{port}")
    assert refused.value.code == "PORT_IN_USE"
    assert str(port) in refused.value.why


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no-such-host.invalid:0"])
async def test_an_address_that_is_not_ours_is_named(address):
    with pytest.raises(ConfigError) as refused:
        await listen(application(), address)
    assert refused.value.code == "ADDRESS_UNAVAILABLE"


async def test_a_wildcard_is_shown_as_an_address_that_can_be_dialled():
    listener = await listen(application(), "0.0.0.0:0")
    assert listener.url == f"http://127.0.0.1:{listener.port}"
    await listener.close()


async def test_ipv6_is_served_and_shown_in_brackets():
    listener = await listen(application(), "[::1]:0")
    assert listener.url.startswith("http://[::1]:")
    assert await post(listener) == "the whole way: body"
    await listener.close()


async def test_tls_with_one_file_or_unreadable_ones_is_refused(tmp_path):
    with pytest.raises(ConfigError) as half:
        await listen(application(), "127.0.0.1:0", tls=TlsSettings.model_construct(cert_file=tmp_path / "c"))
    assert half.value.code == "CONFIG_INVALID"
    with pytest.raises(ConfigError) as missing:
        await listen(application(), "127.0.0.1:0", tls=TlsSettings(cert_file=tmp_path / "c", key_file=tmp_path / "k"))
    assert missing.value.code == "SECRET_UNREADABLE"


async def test_a_lane_answers_in_front_of_the_application_for_its_method_and_path_only():
    async def lane(request):
        return web.Response(text="the lane: " + await request.text())

    listener = await listen(application(lane), "127.0.0.1:0")
    assert await post(listener) == "the lane: body"
    assert await post(listener, method="GET") == "the whole way: body"
    await listener.close()


async def test_what_a_lane_passes_on_reaches_the_application_with_its_body():
    async def lane(request):
        await request.read()

    listener = await listen(application(lane), "127.0.0.1:0")
    assert await post(listener) == "the whole way: body"
    await listener.close()
