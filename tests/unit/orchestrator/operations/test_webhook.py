"""The webhook client against a real HTTP receiver on loopback."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from orchestrator.operations.webhook import MAX_ANSWER, WebhookClient, interpret
from secbeat import ids, signing
from secbeat.testing import FakeClock

OP = ids.new_op_id()
BODY = b'{"reason": "X"}'


@asynccontextmanager
async def receiver(handler):
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(**options):
    options.setdefault("timeout_seconds", lambda: 5.0)
    made = WebhookClient(clock=FakeClock(), **options)
    try:
        yield made
    finally:
        await made.close()


def answering(status, body=b"", headers=None):
    async def handler(_request):
        return web.Response(status=status, body=body, headers=headers)

    return handler


async def sent(handler, **options):
    async with receiver(handler) as url, client(**options) as webhooks:
        return await webhooks.send(f"{url}/provision", op_id=OP, body=BODY)


def answer(op_id=OP, status="accepted"):
    return f'{{"status":"{status}","op_id":"{op_id}","node_id":"{ids.new_node_id()}"}}'.encode()


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (202, answer(), "tracked"),
        (200, answer(status="known"), "tracked"),
        (200, b"OK", "untracked"),
        (204, b"", "untracked"),
        (202, answer(ids.new_op_id()), "untracked"),
        (200, b"[" * 3000, "untracked"),
        (200, b"\xff" * (MAX_ANSWER + 1), "untracked"),
        (301, b"", "refused"),
        (400, b"", "refused"),
        (401, b"", "refused"),
        (422, b"", "refused"),
        (408, b"", "retry"),
        (429, b"", "retry"),
        (500, b"", "retry"),
        (503, b"", "retry"),
        (409, b'{"epoch": 12}', "superseded"),
    ],
)
async def test_an_answer_means(status, body, outcome):
    delivery = await sent(answering(status, body))
    assert (delivery.outcome, delivery.status, delivery.arrived) == (outcome, status, True)


async def test_a_refusal_by_epoch_names_the_higher_one():
    assert (await sent(answering(409, b'{"epoch": 12}'))).seen_epoch == 12
    assert (await sent(answering(409, b"nonsense"))).seen_epoch is None


async def test_retry_after_is_taken_from_the_answer_and_capped():
    assert (await sent(answering(503, headers={"Retry-After": "17"}))).retry_after == 17
    assert (await sent(answering(503, headers={"Retry-After": "999999"}))).retry_after == 600
    assert (await sent(answering(503, headers={"Retry-After": "soon"}))).retry_after is None
    date = "Thu, 01 Jan 2026 00:01:00 GMT"
    assert (await sent(answering(429, headers={"Retry-After": date}))).retry_after == 60


async def test_a_redirect_is_not_followed():
    paths = []

    async def handler(request):
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    assert (await sent(handler)).outcome == "refused"
    assert paths == ["/provision"]


async def test_the_environments_proxy_is_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await sent(answering(202, answer()))).outcome == "tracked"


async def test_the_request_is_signed_over_its_raw_bytes_and_carries_the_bearer():
    seen = {}

    async def handler(request):
        seen["headers"], seen["body"] = dict(request.headers), await request.read()
        return web.Response()

    secret = signing.new_secret()
    await sent(handler, secret=secret, bearer="tower-token")
    now = FakeClock().now().timestamp()
    assert signing.verify([secret], seen["headers"], seen["body"], now=now, tolerance=1) == OP
    assert seen["headers"]["Authorization"] == "Bearer tower-token"
    assert seen["headers"]["Content-Type"] == "application/json"


async def test_without_a_secret_nothing_claims_to_be_signed():
    seen = {}

    async def handler(request):
        seen.update(request.headers)
        return web.Response()

    await sent(handler)
    assert not signing.is_signed(seen)
    assert seen["Idempotency-Key"] == OP


async def test_a_receiver_that_hangs_may_have_acted():
    async def handler(_request):
        await asyncio.sleep(30)

    delivery = await sent(handler, timeout_seconds=lambda: 0.2)
    assert (delivery.outcome, delivery.code, delivery.arrived) == ("retry", "WEBHOOK_TIMEOUT", True)


async def test_a_body_that_never_ends_is_cut_off():
    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    assert (await sent(handler)).outcome == "untracked"


async def test_a_refused_connection_has_certainly_done_nothing(unused_tcp_port):
    async with client() as webhooks:
        delivery = await webhooks.send(f"http://127.0.0.1:{unused_tcp_port}/", op_id=OP, body=BODY)
    assert (delivery.outcome, delivery.arrived) == ("retry", False)


async def test_a_connection_that_breaks_after_the_request_may_have_acted():
    async def handler(request):
        await request.read()
        request.transport.abort()
        return web.Response()

    delivery = await sent(handler)
    assert (delivery.outcome, delivery.arrived) == ("retry", True)


@pytest.mark.parametrize("url", ["not a url", "http://", "ftp://127.0.0.1/x"])
async def test_a_url_that_cannot_be_used_is_refused(url):
    async with client() as webhooks:
        assert (await webhooks.send(url, op_id=OP, body=BODY)).outcome == "refused"


@pytest.mark.parametrize(
    ("status", "outcome", "answer", "code"),
    [
        (429, "retry", b'{"code": "POOL_MACHINES_LIMIT", "detail": "its limit is 3"}', "POOL_MACHINES_LIMIT"),
        (422, "refused", b'{"code": "BLUEPRINT_UNKNOWN", "detail": "there is no x"}', "BLUEPRINT_UNKNOWN"),
        (429, "retry", b'{"code": "SOMEBODY_ELSES", "detail": "x"}', "WEBHOOK_BUSY"),
        (422, "refused", b'{"code": 5}', "WEBHOOK_REFUSED"),
        (503, "retry", b"<html>", "WEBHOOK_BUSY"),
    ],
)
def test_a_refusal_keeps_the_receivers_code_if_it_is_one_of_ours(status, outcome, answer, code):
    delivery = interpret(status, {}, answer, op_id="x", clock=FakeClock())
    assert (delivery.outcome, delivery.code) == (outcome, code)
    assert str(status) in delivery.sentence
