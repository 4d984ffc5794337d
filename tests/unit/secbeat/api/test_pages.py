"""A page served elsewhere cannot make a service act, whatever it can make a browser send."""

from __future__ import annotations

import json

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from secbeat.api import Route, build_app, listen, read_body
from secbeat.api.fast import LANES
from secbeat.wire.base import Wire

ELSEWHERE = "https://evil.example"


class Word(Wire):
    word: str


class Service:
    """One open loopback route that acts, in the application and in the fast lane."""

    def __init__(self):
        self.acted = []

    def app(self):
        async def act(request):
            self.acted.append((await read_body(request, Word)).word)
            return web.Response()

        async def look(_request):
            return web.json_response({})

        async def lane(request):
            self.acted.append(json.loads(await request.read())["word"])
            return web.Response()

        app = build_app(
            "test",
            [
                Route(method="POST", path="/act", handler=act, summary="Act", scope="operate", loopback_open=True),
                Route(method="POST", path="/quick", handler=act, summary="Act", scope=None),
                Route(method="GET", path="/look", handler=look, summary="Look", scope="read", loopback_open=True),
            ],
            tokens=lambda _token: None,
        )
        app[LANES] = {("POST", "/quick"): lane}
        return app


@pytest_asyncio.fixture
async def service():
    made = Service()
    listener = await listen(made.app(), "127.0.0.1:0", shutdown_timeout=0.2)
    async with aiohttp.ClientSession() as made.session:
        made.url = listener.url
        yield made
    await listener.close()


async def send(service, path, method="POST", body=b'{"word": "x"}', **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with service.session.request(
        method, service.url + path, data=body if method == "POST" else None, headers=sent,
        skip_auto_headers=["Content-Type"],
    ) as answer:  # fmt: skip
        return answer.status, await answer.read()


JSON = {"Content_Type": "application/json"}


@pytest.mark.parametrize("path", ["/act", "/quick"])
async def test_a_program_without_a_browser_acts(service, path):
    assert (await send(service, path, **JSON))[0] == 200
    assert service.acted == ["x"]


@pytest.mark.parametrize("path", ["/act", "/quick"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ELSEWHERE},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": ELSEWHERE, "Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},  # a form that is submitted by itself
    ],
)
async def test_a_request_of_another_site_is_refused_and_nothing_is_done(service, path, headers):
    status, body = await send(service, path, **JSON, **headers)
    assert (status, json.loads(body)["code"]) == (403, "ORIGIN_REFUSED")
    assert service.acted == []


@pytest.mark.parametrize("path", ["/act", "/quick"])
async def test_a_page_of_the_service_itself_acts(service, path):
    own = {"Origin": service.url, "Sec_Fetch_Site": "same-origin"}
    assert (await send(service, path, **JSON, **own))[0] == 200


@pytest.mark.parametrize("path", ["/act"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
async def test_what_a_form_can_send_without_asking_is_no_json(service, path, kind):
    headers = {"Content_Type": kind} if kind else {}
    assert (await send(service, path, **headers))[0] == 415
    assert service.acted == []


async def test_the_question_that_a_browser_asks_before_json_is_not_answered_with_leave(service):
    asked = {"Origin": ELSEWHERE, "Access_Control_Request_Method": "POST"}
    async with service.session.options(
        service.url + "/act", headers={key.replace("_", "-"): value for key, value in asked.items()}
    ) as answer:
        assert answer.status in {403, 405}
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


async def test_a_name_that_was_rebound_to_loopback_is_refused(service):
    assert (await send(service, "/act", Host="rebound.evil.example", **JSON))[0] == 403
    assert service.acted == []


async def test_a_link_from_elsewhere_may_be_followed_but_nothing_be_embedded(service):
    navigating = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert (await send(service, "/look", "GET", **navigating))[0] == 200
    assert (await send(service, "/look", "GET", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors"))[0] == 403
