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
