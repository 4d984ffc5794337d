"""What every service's HTTP surface does, whatever its routes are."""

from __future__ import annotations

import json
import socket

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from openapi_spec_validator import validate
from pydantic import Field

from secbeat.api import (
    Route,
    build_app,
    changed,
    fail,
    guarding,
    health_routes,
    listen,
    openapi,
    page,
    principal,
    query_int,
    read_body,
    reply,
)
from secbeat.api.requests import change_of
from secbeat.auth import FailureLimiter, Principal, TokenBook
from secbeat.errors import RefusedError
from secbeat.testing import FakeClock
from secbeat.wire import control, pools
from secbeat.wire.base import Wire


class Thing(Wire):
    """A body."""

    name: str = Field(max_length=10)
    size: int = 1


async def echo(request):
    body = await read_body(request, Thing)
    changed(request, before={"size": 0}, after={"size": body.size})
    return reply({"name": body.name, "by": principal(request).name})


async def refuse(request):
    raise RefusedError("CHANGED_MEANWHILE", why="it is 14", revision=14)


async def crash(request):
    raise RuntimeError("the password is hunter2")


async def number(request):
    return reply(query_int(request, "n", 5, low=1, high=10))


ROUTES = [
    *health_routes(dict),
    Route(method="POST", path="/things", handler=echo, summary="Echo", scope="operate", request=Thing, changes=True),
    Route(method="GET", path="/things", handler=number, summary="Number", scope="read", query={"n": "a number"}),
    Route(method="GET", path="/open", handler=number, summary="Open", scope=None, query={"n": "a number"}),
    Route(method="POST", path="/local", handler=echo, summary="Local", scope="operate", loopback_open=True),
    Route(method="POST", path="/refuse", handler=refuse, summary="Refuses", scope="operate", changes=True),
    Route(method="POST", path="/crash", handler=crash, summary="Crashes", scope="operate", changes=True),
    Route(method="DELETE", path="/by/{name:.+}", handler=number, summary="Pattern", scope="admin", changes=True),
    Route(method="POST", path="/old/{id}", handler=echo, summary="Old", scope="operate", request=Thing, legacy=True),
]  # fmt: skip
HOLDERS = {scope: Principal(f"the-{scope}", scope) for scope in ("read", "operate", "admin", "service")}


class Service:
    def __init__(self):
        self.clock = FakeClock()
        self.audited = []
        self.limiter = FailureLimiter(limit=3, window_seconds=60, clock=self.clock)
        self.app = build_app(
            "test", ROUTES, tokens=HOLDERS.get, allowed_hosts=["fleet.example"], on_audit=self._audit,
            limiter=self.limiter, max_body=1024,
        )  # fmt: skip

    async def _audit(self, request, caller, status):
        self.audited.append((request.path, caller.name, status, change_of(request)))

    async def call(self, method, path, body=None, token=None, **headers):
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, self.url + path, data=body, headers=headers, skip_auto_headers=["Content-Type"]
        ) as response:
            response.raw = await response.read()
            return response


@pytest_asyncio.fixture
async def service():
    service = Service()
    listener = await listen(service.app, "127.0.0.1:0", shutdown_timeout=0.2)
    async with aiohttp.ClientSession() as service.session:
        service.url = listener.url
        yield service
    await listener.close()


def code(response):
    assert response.headers["Content-Type"].startswith("application/problem+json")
    body = json.loads(response.raw)
    assert body["status"] == response.status
    return body["code"]


# ---------------------------------------------------------------- who may


@pytest.mark.parametrize(
    ("token", "method", "path", "status"),
    [
        ("read", "GET", "/things", 200), ("operate", "GET", "/things", 200), ("admin", "GET", "/things", 200),
        ("service", "GET", "/things", 403), ("read", "POST", "/things", 403), ("operate", "POST", "/things", 200),
        ("service", "POST", "/things", 403), ("admin", "POST", "/things", 200), ("operate", "DELETE", "/by/x", 403),
        ("admin", "DELETE", "/by/x", 200), (None, "GET", "/things", 401), ("wrong", "GET", "/things", 401),
        (None, "DELETE", "/by/x", 401), (None, "DELETE", "/by/x/y", 401), (None, "GET", "/open", 200),
    ],
)  # fmt: skip
async def test_a_route_is_open_to_its_scope_and_to_nobody_else(service, token, method, path, status):
    response = await service.call(method, path, {"name": "a"} if method == "POST" else None, token)
    assert response.status == status
    if status == 401:
        assert code(response) == "NOT_AUTHENTICATED"
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (b"token that was sent" in response.raw) == (token is not None), "a wrong token is not a missing one"
    if status == 403:
        assert code(response) == "NOT_AUTHORISED"


@pytest.mark.parametrize("header", ["Basic b3BlcmF0ZTo=", "operate", "Bearer", "Bearer  ", "bearer\toperate"])
async def test_another_form_of_authorization_is_no_token(service, header):
    assert (await service.call("GET", "/things", Authorization=header)).status == 401


async def test_loopback_needs_no_token_where_the_route_is_open_to_it_and_never_with_a_wrong_one(service):
    response = await service.call("POST", "/local", {"name": "a"})
    assert json.loads(response.raw)["by"] == "loopback"
    assert (await service.call("POST", "/local", {"name": "a"}, "wrong")).status == 401
    assert (await service.call("POST", "/local", {"name": "a"}, "read")).status == 403


async def test_from_elsewhere_the_same_route_needs_a_token(service, monkeypatch):
    monkeypatch.setattr(guarding, "is_loopback", lambda address: False)
    assert (await service.call("POST", "/local", {"name": "a"})).status == 401
    forwarded = await service.call("POST", "/local", {"name": "a"}, **{"X-Forwarded-For": "127.0.0.1"})
    assert forwarded.status == 401
    assert (await service.call("POST", "/local", {"name": "a"}, "operate")).status == 200


async def test_too_many_failed_logins_are_429_until_the_window_ends(service):
    for _ in range(3):
        assert (await service.call("GET", "/things", token="wrong")).status == 401
    blocked = await service.call("GET", "/things", token="wrong")
    assert (blocked.status, code(blocked), blocked.headers["Retry-After"]) == (429, "TOO_MANY_FAILURES", "60")
    assert (await service.call("GET", "/things")).status == 429
    await service.clock.advance(61)
    assert (await service.call("GET", "/things", token="wrong")).status == 401


async def test_a_valid_token_passes_while_its_address_is_limited(service):
    for _ in range(5):
        await service.call("GET", "/things", token="wrong")
    assert (await service.call("GET", "/things", token="read")).status == 200


async def test_a_valid_token_ends_the_limit_of_its_address(service):
    for _ in range(5):
        await service.call("GET", "/things", token="wrong")
    assert (await service.call("GET", "/things", token="wrong")).status == 429
    await service.call("GET", "/things", token="read")
    assert (await service.call("GET", "/things", token="wrong")).status == 401


async def test_the_limit_says_how_long_it_still_lasts(service):
    for _ in range(3):
        await service.call("GET", "/things", token="wrong")
    await service.clock.advance(45)
    assert (await service.call("GET", "/things", token="wrong")).headers["Retry-After"] == "15"


async def test_tokens_come_from_a_book_as_well(tmp_path):
    token = TokenBook.issue(tmp_path / "tokens.json", name="alice", scope="read")
    app = build_app("test", ROUTES, tokens=TokenBook.load(tmp_path / "tokens.json"))
    listener = await listen(app, "127.0.0.1:0")
    async with aiohttp.ClientSession() as session:
        for given, status in ((token, 200), (token + "x", 401)):
            async with session.get(f"{listener.url}/things", headers={"Authorization": f"Bearer {given}"}) as response:
                assert response.status == status
    await listener.close()


# ---------------------------------------------------------------- host


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:3030", "localhost", "LOCALHOST:3030", "[::1]:3030", "10.0.0.7", "Fleet.Example:3030"],
)
async def test_addresses_and_our_names_are_accepted_as_host(service, host):
    assert (await service.call("GET", "/open", Host=host)).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "2130706433"])
async def test_a_name_of_somebody_else_is_refused_whatever_the_path(service, host):
    for path in ("/open", "/docs", "/api/openapi.json", "/nowhere"):
        response = await service.call("GET", path, Host=host)
        # aiohttp itself refuses what is no Host at all.
        assert response.status in {400, 403}, path
        if response.status == 403:
            assert code(response) == "HOST_REFUSED"


async def test_health_answers_under_any_name(service):
    assert (await service.call("GET", "/healthz", Host="pod-7.internal")).status == 200


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("body", "content_type", "status", "expected"),
    [
        (b'{"name": "a"}', "text/plain", 415, "CONTENT_TYPE"),
        (b'{"name": "a"}', None, 415, "CONTENT_TYPE"),
        (b'{"name": ', "application/json", 400, "BODY_MALFORMED"),
        (b"\xff", "application/json", 400, "BODY_MALFORMED"),
        (b'{"name": "a", "name": "b"}', "application/json", 422, "BODY_INVALID"),
        (b'{"name": "a", "x": {"y": 1, "y": 2}}', "application/json", 422, "BODY_INVALID"),
        (b'{"name": "a", "x": NaN}', "application/json", 400, "BODY_MALFORMED"),
        (b'{"name": "a", "x": -Infinity}', "application/json", 400, "BODY_MALFORMED"),
        (b'{"name": "\\ud800"}', "application/json", 400, "BODY_MALFORMED"),
        (b'{"name": "a", "size": 1e999}', "application/json", 422, "BODY_INVALID"),
        (b"[" * 1000, "application/json", 400, "BODY_MALFORMED"),
        (b'{"name": 7}', "application/json", 422, "BODY_INVALID"),
        (b"[]", "application/json", 422, "BODY_INVALID"),
        (b'{"name": "longer than ten"}', "application/json", 422, "BODY_INVALID"),
        (b'{"name": "a"}' + b" " * 2000, "application/json", 413, "BODY_TOO_LARGE"),
    ],
)  # fmt: skip
async def test_a_body_that_cannot_be_used_has_its_answer(service, body, content_type, status, expected):
    headers = {"Content-Type": content_type} if content_type else {}
    response = await service.call("POST", "/things", body, "operate", **headers)
    assert (response.status, code(response)) == (status, expected)


async def test_a_deeply_nested_unknown_key_is_refused_before_it_is_built(service):
    body = b'{"name": "a", "x": ' + b"[" * 400 + b"]" * 400 + b"}"
    response = await service.call("POST", "/things", body, "operate", **{"Content-Type": "application/json"})
    assert (response.status, code(response)) == (400, "BODY_MALFORMED")


async def test_a_chunked_body_over_the_limit_is_413(service):
    async def endless():
        for _ in range(100):
            yield b" " * 1000

    async with service.session.post(
        f"{service.url}/things",
        data=endless(),
        headers={"Content-Type": "application/json", "Authorization": "Bearer operate"},
    ) as response:
        assert response.status == 413


async def test_a_field_error_names_the_field_and_not_the_value(service):
    response = await service.call("POST", "/things", {"name": "a", "size": "secret-value"}, "operate")
    body = json.loads(response.raw)
    assert body["field"] == "size"
    assert "secret-value" not in response.raw.decode()


@pytest.mark.parametrize(("query", "status"), [("", 200), ("?n=10", 200), ("?n=0", 422), ("?n=11", 422), ("?n=٣", 422)])
async def test_a_query_is_checked(service, query, status):
    assert (await service.call("GET", f"/open{query}")).status == status


# ---------------------------------------------------------------- errors


async def test_an_error_of_ours_has_why_and_fix(service):
    response = await service.call("POST", "/refuse", token="operate")
    assert (response.status, code(response)) == (409, "CHANGED_MEANWHILE")
    body = json.loads(response.raw)
    assert (body["detail"], body["revision"]) == ("it is 14", 14)
    assert body["fix"]


async def test_a_defect_is_500_and_tells_nothing_of_the_inside(service, caplog):
    response = await service.call("POST", "/crash", token="operate")
    assert (response.status, code(response)) == (500, "INTERNAL")
    assert b"hunter2" not in response.raw
    assert "hunter2" in caplog.text


async def test_unknown_paths_and_methods_are_problems_with_the_allowed_methods(service):
    assert code(await service.call("GET", "/nowhere")) == "NOT_FOUND"
    response = await service.call("PUT", "/things")
    assert (response.status, code(response)) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == "GET,HEAD,POST"


async def test_the_originals_routes_answer_bare_statuses(service):
    wrong_method = await service.call("GET", "/old/7")
    assert (wrong_method.status, wrong_method.raw) == (405, b"")
    no_token = await service.call("POST", "/old/7", {"name": "a"})
    assert (no_token.status, no_token.raw) == (401, b"")
    invalid = await service.call("POST", "/old/7", {}, "operate")
    assert invalid.status == 422
    assert invalid.raw.startswith(b"Failed to deserialize the JSON body into the target type: ")


# ---------------------------------------------------------------- audit


async def test_each_change_is_audited_once_with_its_outcome(service):
    await service.call("POST", "/things", {"name": "a", "size": 3}, "operate")
    await service.call("POST", "/refuse", token="operate")
    await service.call("POST", "/crash", token="operate")
    await service.call("POST", "/things", {"name": "a"}, "read")
    await service.call("DELETE", "/by/x/y")
    nothing = (None, None)
    assert service.audited == [
        ("/things", "the-operate", 200, ({"size": 0}, {"size": 3})),
        ("/refuse", "the-operate", 409, nothing),
        ("/crash", "the-operate", 500, nothing),
        ("/things", "the-read", 403, nothing),
        ("/by/x/y", "anonymous", 401, nothing),
    ]


async def test_beyond_the_limit_of_failed_logins_nothing_more_is_audited(service):
    for _ in range(10):
        await service.call("POST", "/things", {"name": "a"}, "wrong")
    assert [status for _, _, status, _ in service.audited] == [401, 401, 401]


# ---------------------------------------------------------------- headers, docs


async def test_answers_are_neither_sniffed_nor_cached_nor_framed(service):
    answered = [("GET", path) for path in ("/open", "/nowhere", "/healthz", "/docs", "/things", "/old/7")]
    for method, path in [*answered, ("PUT", "/things"), ("TRACE", "/open"), ("HEAD", "/open"), ("POST", "/crash")]:
        response = await service.call(method, path, token="operate" if path == "/crash" else None)
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "Server" not in response.headers
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_the_page_may_use_its_own_style_and_nothing_else(service):
    response = await service.call("GET", "/docs")
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "<script" not in response.raw.decode()
    # The hash is that of the style which the page really has.
    style = response.raw.decode().split("<style>")[1].split("</style>")[0]
    assert style == page._STYLE


async def test_the_description_is_valid_openapi_and_names_scopes(service):
    document = json.loads((await service.call("GET", "/api/openapi.json")).raw)
    validate(document)
    operation = document["paths"]["/by/{name}"]["delete"]
    assert (operation["x-secbeat-scope"], operation["x-secbeat-changes"]) == ("admin", True)
    assert document["paths"]["/things"]["get"]["parameters"][0]["name"] == "n"


def test_two_models_of_one_name_are_kept_apart_in_the_description():
    def route(path, request):
        return Route(method="POST", path=path, handler=echo, summary="x", scope=None, request=request)

    document = openapi.document("t", [route("/a", pools.ResumeRequest), route("/b", control.ResumeRequest)])
    validate(document)

    def body(path):
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        return document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]["properties"]

    assert set(body("/a")) == {"if_revision"}
    assert "boot_id" in body("/b")


async def test_a_handler_outside_the_table_is_not_reachable():
    app = build_app("test", ROUTES, tokens=HOLDERS.get)

    async def hidden(request):
        return web.Response(text="secret")

    app.router.add_get("/hidden", hidden)
    listener = await listen(app, "127.0.0.1:0")
    async with aiohttp.ClientSession() as session, session.get(f"{listener.url}/hidden") as response:
        assert response.status == 500
        assert "secret" not in await response.text()
    await listener.close()


def test_fail_needs_a_code_of_the_catalogue():
    with pytest.raises(KeyError):
        fail("NO_SUCH_CODE", 400, "x")


async def test_a_request_that_is_no_http_closes_the_connection_and_not_the_service(service):
    with socket.create_connection(("127.0.0.1", int(service.url.rsplit(":", 1)[1])), timeout=5) as raw:
        raw.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        raw.setblocking(False)
    assert (await service.call("GET", "/open")).status == 200
