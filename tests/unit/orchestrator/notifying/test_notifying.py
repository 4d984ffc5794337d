"""One message when a matter begins, one when it is over; signed, in order, retried, and never in the loop's way."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import ValidationError
from standardwebhooks import Webhook

from orchestrator.notifying import HttpPoster, Notifier
from orchestrator.notifying.notifier import ATTEMPTS
from orchestrator.testing import world
from secbeat import signing
from secbeat.settings import NotificationsSettings
from secbeat.testing import settle
from secbeat.wire.pools import PauseRequest, ResumeRequest

SECRET = signing.new_secret()
KINDS = ["at_limit", "breaker_open", "frozen", "paused", "operation_failed", "needs_operator", "node_failed"]
QUICK = {"warmup_seconds": 0, "scale_up_checks": 1, "scale_down_checks": 1000, "scaling_check_interval_seconds": 10}


class Receiver:
    """A Poster that answers as told; ``statuses`` first, then 200."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.got = []
        self.hold = None

    async def post(self, url, body, headers):
        if self.hold is not None:
            await self.hold.wait()
        # The reference implementation of Standard Webhooks checks the signature with the real clock: not here.
        self.got.append((json.loads(body), dict(headers)))
        return self.statuses.pop(0) if self.statuses else 200

    async def close(self):
        pass

    @property
    def types(self):
        return [body["type"] for body, _ in self.got]


@asynccontextmanager
async def notified(receiver, *, kinds=KINDS, manner="tracked", **settings):
    """A world whose loop notifies ``receiver``."""
    w = world(**settings)
    w.receiver.manner = manner
    async with w:
        notifier = Notifier(
            url="http://127.0.0.1:1/hook", secret=SECRET, kinds=kinds, poster=receiver, clock=w.clock,
            cluster_id=lambda: w.core.context.records.cluster_id,
        )  # fmt: skip
        w.core.loop.on_evaluated = notifier.evaluated
        tasks = [asyncio.create_task(notifier.run()), asyncio.create_task(notifier.follow(w.core.context.events))]
        await settle()
        try:
            yield w, notifier
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_fifty_evaluations_at_the_limit_are_one_message_and_one_recovery():
    receiver = Receiver()
    async with notified(receiver, pool={**QUICK, "max": 1}) as (w, _):
        await w.until(lambda: len(w.active()) == 1, within=30)
        w.load(0.95)
        await w.clock.advance(500)
        at_limit = [one for one in w.core.decisions("default", newest=100) if one.code == "AT_MAX"]
        assert len(at_limit) >= 49
        assert receiver.types == ["at_limit.began"]
        w.load(0.5)
        await w.clock.advance(60)
        assert receiver.types == ["at_limit.began", "at_limit.ended"]
    began, ended = (body["data"] for body, _ in receiver.got)
    assert (began["pool"], began["code"], began["since"]) == ("default", "AT_MAX", ended["since"])
    assert "max is 1" in began["sentence"]


async def test_load_that_hovers_around_the_threshold_is_one_matter():
    receiver = Receiver()
    async with notified(receiver, pool={**QUICK, "max": 1}) as (w, _):
        await w.until(lambda: len(w.active()) == 1, within=30)
        for number in range(20):
            w.load(0.95 if number % 2 else 0.5)
            await w.clock.advance(10)
        assert receiver.types == ["at_limit.began"]


async def test_a_pause_is_told_with_its_person_and_reason_and_so_is_its_end():
    receiver = Receiver()
    async with notified(receiver, pool=QUICK) as (w, _):
        await w.core.pause("default", PauseRequest(direction="in", for_seconds=60, reason="upgrade"), by="anna")
        await w.clock.advance(30)
        await w.clock.advance(60)
    assert receiver.types == ["paused.began", "paused.ended"]
    data = receiver.got[0][0]["data"]
    assert data["sentence"] == "anna paused shrinking until 2026-01-01T00:01:00Z: upgrade"
    assert data["code"] == "PAUSED_IN"


async def test_the_breaker_and_each_failure_behind_it_are_told():
    receiver = Receiver()
    async with notified(receiver, manner="refused", pool=QUICK, breaker_reset_seconds=600) as (w, _):
        await w.clock.advance(120)
        assert receiver.types.count("breaker_open.began") == 1
        failed = [body["data"] for body, _ in receiver.got if body["type"] == "operation_failed.happened"]
        ended = [op.op_id for op in w.operations("create") if op.state == "failed"]
        assert [data["op_id"] for data in failed] == ended[-len(failed) :]
        assert len(failed) >= 2
        assert {data["code"] for data in failed} == {"WEBHOOK_REFUSED"}
        w.receiver.manner = "tracked"
        await w.core.resume("default", ResumeRequest(), by="anna")
        await w.clock.advance(30)
        assert receiver.types[-1] == "breaker_open.ended"


async def test_only_the_chosen_kinds_are_told():
    receiver = Receiver()
    async with notified(receiver, kinds=["breaker_open"], pool=QUICK) as (w, _):
        await w.core.pause("default", PauseRequest(), by="anna")
        await w.clock.advance(30)
    assert receiver.types == []


async def test_a_receiver_that_fails_gets_it_again_with_the_same_id_and_the_order_is_kept():
    receiver = Receiver(None, 503, 429, 500)
    async with notified(receiver, pool=QUICK) as (w, notifier):
        await w.core.pause("default", PauseRequest(for_seconds=15), by="anna")
        await w.clock.advance(600)
        assert receiver.types == ["paused.began"] * 5 + ["paused.ended"]
        assert len({headers["webhook-id"] for _, headers in receiver.got[:5]}) == 1
        assert receiver.got[5][1]["webhook-id"] != receiver.got[0][1]["webhook-id"]
        assert (notifier.delivered, notifier.lost) == (2, 0)


async def test_what_is_refused_is_not_repeated_and_what_never_arrives_is_given_up(caplog):
    receiver = Receiver(401, *[None] * ATTEMPTS)
    async with notified(receiver, pool=QUICK) as (w, notifier):
        await w.core.pause("default", PauseRequest(for_seconds=15), by="anna")
        await w.clock.advance(3600)
        assert receiver.types == ["paused.began"] + ["paused.ended"] * ATTEMPTS
        assert (notifier.delivered, notifier.lost) == (0, 2)
    assert [record.getMessage() for record in caplog.records if record.name == "notifications"] == [
        "Notification paused.began was not delivered to 127.0.0.1: it answered 401",
        "Notification paused.ended was not delivered to 127.0.0.1: no answer",
    ]
    assert SECRET not in caplog.text


async def test_a_receiver_that_hangs_holds_up_no_decision():
    receiver = Receiver()
    receiver.hold = asyncio.Event()
    async with notified(receiver, pool={**QUICK, "max": 2}) as (w, _):
        await w.core.pause("default", PauseRequest(direction="in"), by="anna")
        w.load(0.95)
        await w.until(lambda: len(w.active()) == 2, within=60)
        before = w.core.pool("default").decision.revision
        w.load(0.95)
        await w.clock.advance(100)
        assert w.core.pool("default").decision.revision == before + 10
        assert receiver.got == []


async def test_the_same_matter_has_the_same_id_after_a_restart():
    receiver = Receiver()
    async with notified(receiver, pool=QUICK) as (w, _):
        await w.core.pause("default", PauseRequest(), by="anna")
        await w.clock.advance(30)
        told = w.core.loop.on_evaluated.__self__
        told._lasting.clear()  # what a new process knows
        await w.clock.advance(30)
    assert receiver.types == ["paused.began"] * 2
    assert len({headers["webhook-id"] for _, headers in receiver.got}) == 1


async def test_the_reference_implementation_accepts_what_is_sent_over_http():
    got = []

    async def hook(request):
        got.append((await request.read(), dict(request.headers)))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/hook"
    poster = HttpPoster(5.0)
    body = b'{"type":"paused.began"}'
    from time import time

    signed = signing.headers(SECRET, msg_id="msg_1", timestamp=int(time()), body=body)
    assert await poster.post(url, body, signed) == 204
    assert await poster.post("http://127.0.0.1:1/hook", body, signed) is None
    await poster.close()
    await runner.cleanup()
    ((received, headers),) = got
    assert Webhook(SECRET).verify(received, {key.lower(): value for key, value in headers.items()}) == {
        "type": "paused.began"
    }


def test_the_configuration_opens_a_notifier_with_its_secret(tmp_path):
    from orchestrator.notifying import open_notifier, signing_secret
    from secbeat.errors import ConfigError
    from secbeat.testing import FakeClock

    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    settings = NotificationsSettings(url="https://hook.example/x", secret_file=path, kinds=["paused"])
    assert signing_secret(settings) == SECRET
    assert open_notifier(settings, SECRET, None, FakeClock()) is not None
    assert open_notifier(NotificationsSettings(), None, None, FakeClock()) is None
    path.write_text("whsec_short")
    with pytest.raises(ConfigError, match="SECRET_UNREADABLE"):
        signing_secret(settings)


def test_a_receiver_without_a_secret_is_refused():
    with pytest.raises(ValidationError, match="url needs secret_file"):
        NotificationsSettings(url="https://hook.example/x")
