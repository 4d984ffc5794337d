from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest

from secbeat.demo import load
from secbeat.demo.load import Backend, Balancer, Generator
from secbeat.testing import until


class Answer:
    def __init__(self, status, body):
        self.status, self._body = status, body

    async def read(self):
        return self._body


class Session:
    """Answers as the origin does, unless told otherwise."""

    def __init__(self, *, status=200, short=0, error=None, hang=False):
        self.status, self.short, self.error, self.hang = status, short, error, hang
        self.requests = []

    @asynccontextmanager
    async def request(self, method, url, **_options):
        self.requests.append((method, url))
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        if self.hang:
            await asyncio.Event().wait()
        size = int(url.partition("n=")[2] or 0)
        yield Answer(self.status, b"x" * (size - self.short))


@asynccontextmanager
async def generating(session, *, rate, nodes=1):
    balancer = Balancer()
    balancer.backends = {str(number): Backend(str(number), healthy=True) for number in range(nodes)}
    generator = Generator(balancer, session)
    generator.ask(rate)
    running = asyncio.create_task(generator.run())
    try:
        yield generator
    finally:
        running.cancel()
        for task in list(generator._open):
            task.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_it_reaches_the_rate_that_was_asked_for():
    async with generating(Session(), rate=200) as generator:
        await until(lambda: generator.tally.scheduled >= 100, seconds=10)
        assert generator.reached() == pytest.approx(200, rel=0.1)
        assert generator.report()["asked"] == 200


async def test_a_new_rate_counts_from_the_moment_it_was_asked_for():
    async with generating(Session(), rate=400) as generator:
        await until(lambda: generator.tally.scheduled >= 100, seconds=10)
        generator.ask(50)
        before = generator.tally.scheduled
        await until(lambda: generator.tally.scheduled >= before + 25, seconds=10)
        assert generator.reached() == pytest.approx(50, rel=0.2)


async def test_slow_answers_do_not_slow_it_down():
    async with generating(Session(hang=True), rate=200) as generator:
        await until(lambda: generator.tally.scheduled >= 100, seconds=10)
        assert generator.reached() == pytest.approx(200, rel=0.1)
        assert generator.tally.ok == 0
        assert generator.report()["open"] == generator.tally.scheduled


async def test_a_generator_that_cannot_keep_up_shows_it_in_the_rate(monkeypatch):
    monkeypatch.setattr(load, "MAX_OPEN_REQUESTS", 5)
    async with generating(Session(hang=True), rate=200) as generator:
        await until(lambda: generator.tally.unsent >= 50, seconds=10)
        assert generator.tally.scheduled == 5
        assert generator.reached() < 0.9 * 200


async def test_without_a_node_requests_count_as_unsent():
    async with generating(Session(), rate=200, nodes=0) as generator:
        await until(lambda: generator.tally.unsent >= 10, seconds=10)
        assert generator.tally.sent == 0


async def test_an_answer_in_full_is_counted_for_its_node():
    async with generating(Session(), rate=200, nodes=2) as generator:
        await until(lambda: generator.tally.ok >= 20, seconds=10)
        nodes = generator.report()["nodes"]
        assert sum(one["served"] for one in nodes.values()) == generator.tally.ok
        assert all(one["served"] and one["first_served"] <= one["last_served"] for one in nodes.values())
        assert generator.tally.failed == 0


@pytest.mark.parametrize(
    ("session", "word"),
    [
        (Session(status=502), "status 502"),
        (Session(short=1), "bytes of"),
        (Session(error=aiohttp.ServerDisconnectedError()), "ServerDisconnectedError"),
        (Session(error=TimeoutError()), "TimeoutError"),
    ],
)
async def test_whatever_is_no_full_answer_is_a_failed_request_with_its_reason(session, word):
    async with generating(session, rate=200) as generator:
        await until(lambda: any(word in sentence for sentence in generator.tally.failures), seconds=10)
        assert generator.report()["failed"] >= 1


async def test_at_rate_zero_nothing_is_sent():
    session = Session()
    async with generating(session, rate=0) as generator:
        await asyncio.sleep(0.1)
        assert session.requests == []
        assert generator.tally.unsent == 0
