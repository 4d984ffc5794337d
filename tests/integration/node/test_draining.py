from __future__ import annotations

import asyncio
import contextlib
import itertools

import aiohttp
import pytest
from yarl import URL

from node.drain import Drain
from secbeat.clock import SystemClock


class Balancer:
    """Health-checks its nodes every 0.1 s, out after one failure, and sends each request to one that is in."""

    def __init__(self, session: aiohttp.ClientSession, planes) -> None:
        self._session = session
        self._in = {plane.port: True for plane in planes}
        self._turn = itertools.count()
        self.served = dict.fromkeys(self._in, 0)
        self.failed: list[str] = []

    async def check(self) -> None:
        while True:
            for port in self._in:
                try:
                    async with (
                        asyncio.timeout(10),
                        self._session.get(f"https://127.0.0.1:{port}/.secbeat/ready") as answer,
                    ):
                        self._in[port] = answer.status == 200
                except (aiohttp.ClientError, OSError, TimeoutError):
                    self._in[port] = False
            await asyncio.sleep(0.1)

    def sees(self, port: int) -> bool:
        return self._in[port]

    def choose(self) -> int:
        ports = [port for port, well in self._in.items() if well]
        return ports[next(self._turn) % len(ports)]

    async def one(self, path: str, *, data: bytes | None = None, fresh: bool = False) -> None:
        port = self.choose()
        headers = {"Connection": "close"} if fresh else {}
        url = URL(f"https://127.0.0.1:{port}{path}", encoded=True)
        try:
            async with self._session.request("POST" if data else "GET", url, data=data, headers=headers) as answer:
                await answer.read()
                if answer.status != 200:
                    self.failed.append(f"{path}: {answer.status}")
        except (aiohttp.ClientError, OSError) as error:
            self.failed.append(f"{path}: {error!r}")
        self.served[port] += 1


async def no_retry(session: aiohttp.ClientSession) -> None:
    session._retry_connection = False  # a request that the client had to repeat counts as failed


def drain_of(plane, tmp_path, *, longest=20.0, propagation=0.6) -> Drain:
    return Drain(
        plane,
        SystemClock(),
        boot_id="b",
        record_file=tmp_path / "drain.json",
        longest=longest,
        propagation=propagation,
    )


@pytest.mark.parametrize("turn", range(2))
async def test_no_request_fails_while_one_of_two_nodes_leaves(turn, upstream, plane, client, tmp_path, until):
    backend = await upstream()
    leaving, staying = await plane(backend), await plane(backend)
    await no_retry(client)
    balancer = Balancer(client, [leaving, staying])
    over = asyncio.Event()

    async def keep_alive(number: int) -> None:
        while not over.is_set():
            await balancer.one("/x", data=b"y" * 100 if number % 2 else None)
            await asyncio.sleep(0.001 * (number % 5))

    async def one_shot() -> None:
        while not over.is_set():
            await balancer.one("/x", fresh=True)

    async def slow() -> None:
        while not over.is_set():
            await balancer.one("/slow?ms=700")

    checking = asyncio.create_task(balancer.check())
    clients = [asyncio.create_task(keep_alive(number)) for number in range(12)]
    clients += [asyncio.create_task(one_shot()) for _ in range(2)]
    clients += [asyncio.create_task(slow()) for _ in range(8)]
    try:
        await until(lambda: balancer.served[leaving.port] > 100, 30)
        drain = drain_of(leaving, tmp_path, longest=60, propagation=30)
        running = asyncio.create_task(drain.run())
        drain.begin(reason="test", seconds=60)
        # The propagation is long enough by definition: as long as this balancer takes on this machine, and a little.
        await until(lambda: not balancer.sees(leaving.port), 20)
        await asyncio.sleep(0.3)
        assert drain.phase == "propagating"
        drain.configure(longest=60, propagation=0)
        outcome = await running
        await leaving.end()
        served_at_the_end = balancer.served[leaving.port]
        count = balancer.served[staying.port]
        await until(lambda: balancer.served[staying.port] > count + 20, 30)
        assert balancer.served[leaving.port] == served_at_the_end
    finally:
        over.set()
        await asyncio.gather(*clients)
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
    assert balancer.failed == []
    assert outcome.aborted == 0


async def test_while_it_propagates_everything_is_served_and_told_to_close(
    upstream, plane, client, raw, at, tmp_path, head_of, driver
):
    node = await plane(await upstream())
    reader, writer = await raw(node.port)
    writer.write(b"GET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert "connection: close" not in (await head_of(reader)).lower()
    drain = drain_of(node, tmp_path, propagation=5.0)
    running = asyncio.create_task(drain.run())
    drain.begin(reason="test")
    try:
        # builtin: the very connection goes on, told to close at every response. HAProxy ends it after having said so.
        for _ in range(3 if driver == "builtin" else 1):
            writer.write(b"GET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert "connection: close" in (await head_of(reader)).lower()
        async with client.get(at(node, "/new")) as response:
            assert response.status == 200
            assert response.headers["Connection"] == "close"
        async with client.get(at(node, "/status/404")) as response:
            assert response.headers["Connection"] == "close"
    finally:
        drain.hurry()
        await running


async def test_a_request_that_began_before_the_listener_closed_is_answered_after_it(
    upstream, plane, client, at, tmp_path, until
):
    node = await plane(await upstream())
    request = asyncio.create_task(client.get(at(node, "/slow?ms=1000")))
    await until(lambda: node.in_flight)
    drain = drain_of(node, tmp_path, propagation=0.1)
    running = asyncio.create_task(drain.run())
    drain.begin(reason="test")
    await until(lambda: drain.phase == "closing")
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", node.port)
    response = await request
    assert response.status == 200
    response.release()
    assert (await running).aborted == 0


async def test_a_request_sent_on_an_idle_connection_just_after_the_listener_closed_is_answered(
    upstream, plane, raw, tmp_path, until, head_of
):
    node = await plane(await upstream())
    reader, writer = await raw(node.port)
    writer.write(b"GET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n")
    await head_of(reader)
    drain = drain_of(node, tmp_path, propagation=0.1)
    running = asyncio.create_task(drain.run())
    drain.begin(reason="test")
    await until(lambda: drain.phase == "closing")
    writer.write(b"GET /status/204 HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await head_of(reader)
    assert answer.startswith("HTTP/1.1 204")
    assert "connection: close" in answer.lower()
    async with asyncio.timeout(10):
        assert await reader.read() == b""  # then it ends, in an orderly way
    writer.close()
    assert (await running).aborted == 0


@pytest.mark.parametrize("driver", ["builtin"])  # HAProxy's handshakes are not counted apart from idle connections
async def test_a_handshake_under_way_when_the_listener_closes_is_served(upstream, plane, raw, tmp_path, until):
    """The connection was accepted: its TLS handshake ends after the listener has closed."""
    node = await plane(await upstream())
    drain = drain_of(node, tmp_path, propagation=0.05)
    running = asyncio.create_task(drain.run())
    _, writer = await asyncio.open_connection("127.0.0.1", node.port)
    await until(lambda: node._server.handshaking(5.0))
    drain.begin(reason="test")
    await until(lambda: drain.phase == "closing")
    await asyncio.sleep(0.2)
    assert not running.done()
    writer.close()
    await running


async def test_at_the_deadline_what_is_left_is_cut_and_counted(upstream, plane, client, at, tmp_path, until):
    node = await plane(await upstream())
    request = asyncio.create_task(client.get(at(node, "/slow?ms=60000")))
    await until(lambda: node.in_flight)
    drain = drain_of(node, tmp_path, longest=0.6)
    running = asyncio.create_task(drain.run())
    drain.begin(reason="test", seconds=500)
    outcome = await running
    assert outcome.aborted == 1
    assert 0.5 < outcome.seconds < 10
    await node.end()
    with pytest.raises(aiohttp.ClientError):
        await request


async def test_a_resumed_node_serves_without_telling_anyone_to_close(upstream, plane, client, at, tmp_path):
    node = await plane(await upstream())
    drain = drain_of(node, tmp_path, propagation=5.0)
    running = asyncio.create_task(drain.run())
    drain.begin(reason="test")
    async with client.get(at(node, "/.secbeat/ready")) as response:
        assert response.status == 503
    drain.resume("still needed")
    async with client.get(at(node, "/.secbeat/ready")) as response:
        assert response.status == 200
    async with client.get(at(node)) as response:
        assert "Connection" not in response.headers
    assert not running.done()
    drain.begin(reason="again")
    drain.hurry()
    await running


@pytest.mark.parametrize("driver", ["builtin"])  # HAProxy does not speak WebSocket: see the next test
async def test_websockets_are_closed_with_1001_and_both_sides_hear_it(upstream, plane, client, at, tmp_path, until):
    codes = []

    async def socket(request):
        made = aiohttp.web.WebSocketResponse()
        await made.prepare(request)
        async for _ in made:
            pass
        codes.append(made.close_code)
        return made

    app = aiohttp.web.Application()
    app.router.add_get("/ws", socket)
    node = await plane(await upstream(app))
    sockets = [await client.ws_connect(at(node, "/ws")) for _ in range(5)]
    drain = drain_of(node, tmp_path, propagation=0.1)
    running = asyncio.create_task(drain.run())
    drain.begin(reason="test")
    for one in sockets:
        message = await one.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == 1001
    outcome = await running
    assert outcome.aborted == 0
    async with asyncio.timeout(5):
        await until(lambda: len(codes) == 5)
    assert codes == [1001] * 5


@pytest.mark.needs_haproxy
@pytest.mark.parametrize("driver", ["haproxy"])
async def test_a_tunnel_through_haproxy_works_until_the_deadline_and_is_counted_as_cut(
    upstream, plane, client, at, tmp_path, until
):
    node = await plane(await upstream())
    socket = await client.ws_connect(at(node, "/ws"))
    drain = drain_of(node, tmp_path, longest=2.0, propagation=0.1)
    running = asyncio.create_task(drain.run())
    drain.begin(reason="test")
    await until(lambda: drain.phase == "closing")
    await socket.send_str("still here")
    assert await socket.receive_str(timeout=5) == "still here"
    assert (await running).aborted == 1
    await node.end()
    assert (await socket.receive(timeout=5)).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


async def test_a_silent_client_cannot_hold_up_a_drain(upstream, plane, raw, tmp_path):
    node = await plane(await upstream())
    for _ in range(3):
        await raw(node.port)  # connected, never says a word, never closes
    drain = drain_of(node, tmp_path, propagation=0.1)
    running = asyncio.create_task(drain.run())
    drain.begin(reason="test")
    async with asyncio.timeout(15):
        assert (await running).aborted == 0


async def test_an_idle_plane_is_empty_at_once_and_ends_twice_without_harm(upstream, plane, tmp_path):
    node = await plane(await upstream())
    drain = drain_of(node, tmp_path, propagation=0.0)
    running = asyncio.create_task(drain.run())
    drain.begin(reason="test")
    assert (await running).seconds < 5
    await node.end()
    await node.end()
    with contextlib.suppress(OSError):
        await asyncio.open_connection("127.0.0.1", node.port)
        pytest.fail("still listening")
