"""GET /api/v1/events: order, resumption, heartbeat comments, slow clients."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from orchestrator.http import streaming


async def read_events(response, count):
    """The next ``count`` blocks of the stream that are events."""
    found = []
    async with asyncio.timeout(10):
        while len(found) < count:
            block = await response.content.readuntil(b"\n\n")
            lines = dict(line.split(": ", 1) for line in block.decode().strip().split("\n") if not line.startswith(":"))
            if "data" in lines:  # not a number alone
                found.append((lines.get("event"), lines.get("id"), json.loads(lines["data"])))
    return found


@contextlib.asynccontextmanager
async def following(api, query="", **headers):
    headers["Authorization"] = "Bearer read-token"
    async with api.session.get(f"{api.url}/api/v1/events{query}", headers=headers) as response:
        if response.status == 200:
            await response.content.readuntil(b"\n\n")
        yield response


async def test_events_arrive_as_they_happen_in_order_and_numbered(api):
    async with following(api) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        api.events.publish("node.joined", "web-1 joined", node_id="n", address="127.0.1.10")
        api.events.publish("node.drained", "web-1 drained")
        events = await read_events(response, 2)
    assert [body["kind"] for _, _, body in events] == ["node.joined", "node.drained"]
    assert events[0][2]["facts"] == {"address": "127.0.1.10"}
    assert [int(seq) for _, seq, _ in events] == [body["seq"] for _, _, body in events]
    assert int(events[1][1]) == int(events[0][1]) + 1


async def test_a_client_resumes_behind_its_last_event_without_gap_or_repetition(api):
    for number in range(5):
        api.events.publish("test.tick", f"{number}")
    resume = str(api.events.newest(3)[0].seq)
    async with api.session.get(
        f"{api.url}/api/v1/events", headers={"Authorization": "Bearer read-token", "Last-Event-ID": resume}
    ) as response:
        api.events.publish("test.tick", "5")
        events = await read_events(response, 3)
    assert [body["sentence"] for _, _, body in events] == ["3", "4", "5"]


async def test_a_client_that_resumes_before_what_is_kept_is_told_of_the_gap(api):
    api.events.publish("test.tick", "kept")
    async with api.session.get(
        f"{api.url}/api/v1/events", headers={"Authorization": "Bearer read-token", "Last-Event-ID": "5"}
    ) as response:
        events = await read_events(response, 2)
    assert events[0][0] == "gap"
    assert events[1][2]["sentence"] == "kept"


async def test_once_ends_after_the_newest(api):
    for number in range(5):
        api.events.publish("test.tick", f"{number}")
    answer = await api.get("/api/v1/events?newest=2&once=1", token="read")
    assert answer.body.count(b"data: ") == 2
    assert b'"sentence":"4"' in answer.body


async def test_a_quiet_stream_sends_comments(api, monkeypatch):
    monkeypatch.setattr(streaming, "KEEPALIVE_SECONDS", 0.01)
    async with following(api) as response, asyncio.timeout(10):
        assert await response.content.readuntil(b"\n\n") == b": ping\nid: %d\n\n" % api.events.last_seq


async def test_a_client_that_falls_behind_is_cut_off_and_the_publisher_does_not_wait(api):
    async with following(api) as response:
        # Published without a turn of the loop, so the reader cannot keep up: more than its feed holds.
        for number in range(1500):
            api.events.publish("test.tick", f"{number}")
        assert api.events.followers == 0
        assert api.events.dropped_feeds == 1
        async with asyncio.timeout(10):
            with contextlib.suppress(Exception):
                while await response.content.read(65536):
                    pass
        assert response.content.at_eof() or response.content.exception()


async def test_a_client_that_goes_leaves_no_feed_behind(api):
    async with following(api):
        assert api.events.followers == 1
    async with asyncio.timeout(10):
        while api.events.followers:
            api.events.publish("test.tick", "is anybody there?")
            await asyncio.sleep(0.01)


async def test_the_number_of_streams_is_limited(api, monkeypatch):
    monkeypatch.setattr(streaming, "_MAX_FOLLOWERS", 1)
    async with following(api), following(api) as second:
        assert second.status == 503
        assert (await second.json())["code"] == "TOO_MANY_STREAMS"


@pytest.mark.parametrize("resume", ["abc", "-1", "9" * 30])
async def test_a_last_event_id_that_is_no_number_is_refused(api, resume):
    answer = await api.get("/api/v1/events", token="read", headers={"Last-Event-ID": resume})
    assert answer.status == 422


async def test_streams_end_when_the_service_stops(api):
    async with following(api) as response:
        api.events.close()
        async with asyncio.timeout(10):
            assert await response.content.read() == b""


async def test_head_has_no_body(api):
    answer = await api.call("HEAD", "/api/v1/events", token="read")
    assert (answer.status, answer.body) == (200, b"")
    assert api.events.followers == 0


async def test_over_forced_reconnects_every_event_comes_once_and_in_order(api):
    total, seen, last = 3000, [], None
    api.events.publish("test.tick", "before")

    async def publish():
        for number in range(total):
            api.events.publish("test.tick", str(number))
            if number % 7 == 0:
                await asyncio.sleep(0)

    publishing = None
    async with asyncio.timeout(60):
        while len(seen) < total:
            headers = {"Last-Event-ID": str(last)} if last is not None else {}
            query = "" if last is not None else "?newest=1"
            async with following(api, query, **headers) as response:
                publishing = publishing or asyncio.create_task(publish())
                left = total - len(seen) + (last is None)
                for _, seq, body in await read_events(response, min(1 + len(seen) % 97, left)):
                    last = int(seq)
                    if body["sentence"] != "before":
                        seen.append(int(body["sentence"]))
                response.connection.transport.abort()  # in the middle of whatever is on its way
    await publishing
    assert seen == list(range(total))


async def test_events_are_filtered_by_kind_and_what_is_below_it_and_by_pool(api):
    for kind, pool in (
        ("node.joined", "web"), ("node.joined", "api"), ("nodes.other", "web"), ("operation.failed", "web"),
        ("operation.succeeded", "web"), ("node", "web"), ("pool.paused", None),
    ):  # fmt: skip
        api.events.publish(kind, f"{kind} {pool}", pool=pool)

    async def found(query):
        answer = await api.get(f"/api/v1/events?once=1&newest=100&{query}", token="read")
        lines = [line for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
        return [json.loads(line[6:])["sentence"] for line in lines]

    assert await found("kind=node") == ["node.joined web", "node.joined api", "node web"]
    assert await found("kind=node.joined,operation.failed&pool=web") == ["node.joined web", "operation.failed web"]
    assert await found("pool=api") == ["node.joined api"]
    assert len(await found("")) == 7


async def test_who_filters_comes_back_with_the_number_that_the_last_ping_told(api, monkeypatch):
    monkeypatch.setattr(streaming, "KEEPALIVE_SECONDS", 0.01)
    async with following(api, "?kind=pool") as response:
        for number in range(5):
            api.events.publish("node.joined", str(number))
        async with asyncio.timeout(10):
            while b"id: %d\n" % api.events.last_seq not in await response.content.readuntil(b"\n\n"):
                pass


async def test_a_gap_names_the_oldest_event_that_is_kept(api):
    api.events.publish("test.tick", "kept")
    headers = {"Authorization": "Bearer read-token", "Last-Event-ID": "5"}
    async with api.session.get(f"{api.url}/api/v1/events", headers=headers) as response:
        (gap, event) = await read_events(response, 2)
    assert gap == ("gap", None, {"oldest": int(event[1])})


async def test_a_reader_that_never_reads_costs_a_bounded_number_of_events(api):
    host, port = api.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.transport.pause_reading()
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer read-token\r\n\r\n")
    async with asyncio.timeout(10):
        while not api.events.followers:  # noqa: ASYNC110 - the request is on its way
            await asyncio.sleep(0.01)
    (feed,) = api.events._feeds
    # Far more than the kernel's buffers and ours take together.
    for _ in range(60):
        for _ in range(500):
            api.events.publish("test.tick", "x" * 1500)
        assert len(feed._waiting) <= 1000
        await asyncio.sleep(0)
    assert api.events.followers == 0
    assert api.events.dropped_feeds == 1
    writer.transport.abort()
