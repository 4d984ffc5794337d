"""The hazards of nats-py and NATS, each provoked on a real server (the numbers are those of the NATS notes)."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time

import pytest

from secbeat.bus import Timing, connect
from secbeat.bus.server import NatsServer
from secbeat.errors import ConfigError
from secbeat.settings import NatsSettings
from secbeat.store import Unavailable
from secbeat.testing import until

FAST = Timing(ping=0.3, pings=1, stuck=0.6, reconnect_min=0.02, reconnect_max=0.1, call=1.0)


async def restart(server: NatsServer, *, kill: bool = False) -> None:
    """End the server and start it again on the same port and store."""
    port = int(server.url.rsplit(":", 1)[1])
    if kill:
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
    await server.stop()
    server._port, server._any_port = port, False
    await server.start()


async def test_a_write_while_disconnected_fails_at_once_and_never_happens(open_server, bus_to):
    bus = await bus_to(open_server)
    bucket = await bus.bucket("state")
    os.kill(open_server.pid, signal.SIGKILL)
    await until(lambda: not bus.connected)
    begin = time.monotonic()
    with pytest.raises(Unavailable):
        await bucket.put("node.ghost", b"boo")
    assert time.monotonic() - begin < FAST.call, "it must not wait for a confirmation of what was not sent"
    await restart(open_server)
    await until(lambda: bus.connected)
    await bucket.put("node.real", b"1")
    assert [entry.key for entry in await bucket.entries()] == ["node.real"]


async def test_what_was_queued_when_the_connection_broke_is_not_sent_after_it_is_back(open_server, bus_to):
    bus = await bus_to(open_server)
    bucket = await bus.bucket("state")
    os.kill(open_server.pid, signal.SIGSTOP)
    for _ in range(40):  # fill the socket, so that what follows stays in the client
        await bus.messaging.publish("bulk", b"x" * 500_000)
    await until(lambda: not bus._link.client._pending)  # handed to the socket, which takes no more from now on
    with pytest.raises(Unavailable):
        await bucket.put("node.ghost", b"boo")
    await restart(open_server, kill=True)
    await until(lambda: bus.connected)
    await bucket.put("node.real", b"1")
    assert [entry.key for entry in await bucket.entries()] == ["node.real"]


async def test_a_transport_that_hangs_while_closing_is_aborted(tmp_path, bus_to):
    first = NatsServer(tmp_path / "a", port=0, open_access=True)
    second = NatsServer(tmp_path / "b", port=0, open_access=True)
    await first.start()
    await second.start()
    try:
        bus = await bus_to(first)
        bus._link.client.set_server_pool([first.url, second.url])
        os.kill(first.pid, signal.SIGSTOP)
        for _ in range(40):  # with an empty write buffer closing does not hang
            await bus.messaging.publish("bulk", b"x" * 500_000)
        await until(lambda: bus.connected and str(bus._link.client.connected_url.port) in second.url)
        assert bus.errors["aborted"] == 1
    finally:
        os.kill(first.pid, signal.SIGKILL)
        await first.stop()
        await second.stop()


async def test_a_frozen_server_is_noticed_by_its_silence(open_server, bus_to):
    bus = await bus_to(open_server)
    os.kill(open_server.pid, signal.SIGSTOP)
    try:
        await until(lambda: not bus.connected, seconds=10)
    finally:
        os.kill(open_server.pid, signal.SIGCONT)
    await until(lambda: bus.connected)


@pytest.mark.parametrize("hot", [False, True])
async def test_subscriptions_outlive_a_restart_of_the_server(open_server, bus_to, hot):
    bus = await bus_to(open_server)
    heard: list[bytes] = []
    await bus.messaging.subscribe("secbeat.hb.*", lambda _, payload: heard.append(payload), hot=hot)
    for round_ in (b"before", b"after"):
        await bus.messaging.publish("secbeat.hb.a", round_)
        await until(lambda wanted=round_: wanted in heard)
        if round_ == b"before":
            await restart(open_server, kill=True)
            await until(lambda: bus.connected)
    assert heard == [b"before", b"after"]


async def test_stored_state_outlives_kill_9_of_the_server(open_server, bus_to):
    bus = await bus_to(open_server)
    bucket, queue, ledger = await bus.bucket("state"), await bus.queue(), await bus.ledger()
    await bucket.put("node.a", b"1")
    await queue.put("01M897M22X6M738702J286XS6S")
    await ledger.append("decision", "default", b"d")
    await restart(open_server, kill=True)
    await until(lambda: bus.connected)
    assert (await bucket.get("node.a")).value == b"1"
    assert (await queue.take(5)).op_id == "01M897M22X6M738702J286XS6S"
    assert [record async for record in ledger.read("decision")] == [b"d"]


async def test_publishing_while_disconnected_drops_and_says_nothing(open_server, bus_to):
    bus = await bus_to(open_server)
    await open_server.stop()
    await until(lambda: not bus.connected)
    await bus.messaging.publish("secbeat.ev.a", b"x")


async def test_what_was_published_before_closing_has_left(open_server, bus_to):
    heard: list[bytes] = []
    listener = await bus_to(open_server)
    await listener.messaging.subscribe("secbeat.hb.*", lambda _, payload: heard.append(payload))
    await listener.bucket("state")  # a round trip: the server knows of the subscription
    for _ in range(5):
        node = await bus_to(open_server)
        await node.messaging.publish("secbeat.hb.a", b"Terminating")
        await node.close()
    await until(lambda: len(heard) == 5)


async def test_reconnecting_has_no_end(open_server, bus_to):
    closed: list[bool] = []
    bus = await bus_to(open_server, on_closed=lambda: closed.append(True))
    await open_server.stop()
    await until(lambda: bus.errors.get("connection", 0) > 65)  # nats-py's own limit is 60 attempts
    assert closed == []


async def test_a_failing_handler_is_counted_and_the_next_message_arrives(open_server, bus_to):
    for hot in (False, True):
        bus = await bus_to(open_server)
        heard: list[bytes] = []

        def handler(_, payload, heard=heard):
            if payload == b"bad":
                raise RuntimeError("a defect")
            heard.append(payload)

        await bus.messaging.subscribe("secbeat.hb.*", handler, hot=hot)
        await bus.messaging.publish("secbeat.hb.a", b"bad")
        await bus.messaging.publish("secbeat.hb.a", b"good")
        await until(lambda heard=heard: heard == [b"good"])
        assert bus.errors["handler"] == 1
        await bus.close()


async def test_a_failing_responder_leaves_the_requester_without_an_answer_and_is_logged(open_server, bus_to, caplog):
    bus = await bus_to(open_server)

    async def fail(subject, payload):
        raise RuntimeError("a defect")

    await bus.messaging.respond("secbeat.cmd.n.*", fail)
    with caplog.at_level(logging.ERROR, logger="bus"), pytest.raises(Unavailable):
        await bus.messaging.request("secbeat.cmd.n.ping", b"", 0.5)
    assert "secbeat.cmd.n.*" in caplog.text


async def test_a_value_that_the_server_would_not_take_is_refused_before_it_closes_the_connection(open_server, bus_to):
    bus = await bus_to(open_server)
    bucket = await bus.bucket("state")
    with pytest.raises(ValueError, match="more than"):
        await bucket.put("node.a", b"x" * 2_000_000)
    await bucket.put("node.a", b"x" * 1_000_000)
    assert bus.connected


async def test_many_keys_are_listed_completely(open_server, bus_to):
    bus = await bus_to(open_server, timing=Timing(call=60))
    bucket = await bus.bucket("state")
    for start in range(0, 3000, 50):
        async with asyncio.TaskGroup() as group:
            for number in range(start, start + 50):
                group.create_task(bucket.put(f"node.{number}", b"x" * 50))
    found = await bucket.entries("node.")
    assert {entry.key for entry in found} == {f"node.{number}" for number in range(3000)}


async def test_a_listing_that_lost_messages_is_not_taken_for_complete(open_server, bus_to, monkeypatch):
    bus = await bus_to(open_server)
    bucket = await bus.bucket("state")
    await bucket.put("node.a", b"1")
    await bucket.put("node.b", b"2")
    from secbeat.bus import scan

    read = scan.Scan.read
    monkeypatch.setattr(scan.Scan, "read", lambda self: _all_but_one(read(self)))
    with pytest.raises(Unavailable, match="2 keys expected"):
        await bucket.entries("node.")


async def _all_but_one(reading):
    return (await reading)[:-1]


async def test_making_streams_twice_changes_nothing(open_server, bus_to):
    one, two = await bus_to(open_server), await bus_to(open_server)
    for _ in range(2):
        async with asyncio.TaskGroup() as group:
            for bus in (one, two):
                group.create_task(bus.bucket("state"))
                group.create_task(bus.bucket("jobs"))
                group.create_task(bus.queue())
                group.create_task(bus.ledger())
    await (await one.bucket("state")).put("node.a", b"1")
    assert (await (await two.bucket("state")).get("node.a")).value == b"1"


async def test_a_closed_bus_answers_unavailable_and_closes_again(open_server, bus_to):
    bus = await bus_to(open_server)
    bucket, queue = await bus.bucket("state"), await bus.queue()
    await bus.close()
    await bus.close()
    assert not bus.connected
    for call in (bucket.get("node.a"), bucket.put("node.a", b"1"), bucket.entries(), queue.take(0.1)):
        with pytest.raises(Unavailable):
            await call


class TestTheFirstConnection:
    @staticmethod
    async def refused(settings: NatsSettings, **options) -> ConfigError:
        with pytest.raises(ConfigError) as refusal:
            await connect(settings, name="test", timing=FAST, **options)
        return refusal.value

    async def test_no_server_is_said_so(self):
        error = await self.refused(NatsSettings(url="nats://127.0.0.1:9", connect_timeout_seconds=0.5))
        assert error.code == "NATS_UNREACHABLE"
        assert "127.0.0.1:9" in error.why
        assert "refused" in error.why.lower()

    async def test_a_server_that_starts_a_little_later_is_waited_for(self, tmp_path):
        probe = NatsServer(tmp_path / "n", port=0, open_access=True)
        await probe.start()
        url, port = probe.url, int(probe.url.rsplit(":", 1)[1])
        await probe.stop()
        later = NatsServer(tmp_path / "n", port=port, free_port_if_taken=False, open_access=True)
        connecting = asyncio.ensure_future(connect(NatsSettings(url=url, connect_timeout_seconds=20), name="test"))
        await asyncio.sleep(0.1)
        await later.start()
        bus = await connecting
        assert bus.connected
        await bus.close()
        await later.stop()

    async def test_a_login_is_required_and_missing(self, server):
        error = await self.refused(NatsSettings(url=server.url, connect_timeout_seconds=20))
        assert error.code == "NATS_AUTH"

    async def test_a_creds_file_that_others_can_read_is_refused_before_connecting(self, server):
        creds = server.identity.creds_file("orchestrator")
        creds.chmod(0o644)
        error = await self.refused(NatsSettings(url=server.url, creds_file=creds))
        assert error.code == "SECRET_UNREADABLE"
        assert str(creds) in error.why

    async def test_a_malformed_creds_file_is_refused_and_not_quoted(self, server, tmp_path):
        creds = tmp_path / "bad.creds"
        creds.write_text(
            "-----BEGIN NATS USER JWT-----\nabc\n------END NATS USER JWT------\n"
            "-----BEGIN USER NKEY SEED-----\nSUNOTASEED\n------END USER NKEY SEED------\n"
        )
        creds.chmod(0o600)
        error = await self.refused(NatsSettings(url=server.url, creds_file=creds))
        assert error.code == "SECRET_UNREADABLE"
        assert "SUNOTASEED" not in str(error.lines())

    async def test_the_guides_server_without_js_gets_the_guides_remedy(self, tmp_path):
        from secbeat.bus.program import find_binary

        ports = tmp_path / "ports"
        ports.mkdir()
        process = await asyncio.create_subprocess_exec(
            find_binary(), "--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", ports, stderr=-3, stdout=-3
        )
        try:
            import json

            file = ports / f"nats-server_{process.pid}.ports"
            await until(lambda: file.exists() and file.read_text().strip().endswith("}"))
            url = json.loads(file.read_text())["nats"][0]
            error = await self.refused(NatsSettings(url=url))
            assert error.code == "NATS_NO_JETSTREAM"
            assert error.fix.endswith("nats-server -js --port 4222 --http_port 8222")
            bus = await connect(NatsSettings(url=url), name="node", jetstream=False)  # a node needs none
            await bus.close()
        finally:
            process.terminate()
            await process.wait()

    @pytest.mark.parametrize("version", ["2.9.10", "2.12.5", "2.12.5-RC.1", "nonsense"])
    def test_versions_below_the_floor_are_refused(self, version):
        from secbeat.bus.connecting import check_version

        with pytest.raises(ConfigError, match="NATS_TOO_OLD"):
            check_version(version, "nats://x")

    @pytest.mark.parametrize("version", ["2.12.6", "2.14.0", "2.15.1", "3.0.0", "2.12.6-RC.2"])
    def test_versions_from_the_floor_upward_are_taken(self, version):
        from secbeat.bus.connecting import check_version

        check_version(version, "nats://x")

    async def test_the_embedded_server_is_known_to_sync_and_another_is_warned_about(
        self, server, open_server, bus_to, caplog, monkeypatch
    ):
        from secbeat.bus import connecting

        with caplog.at_level(logging.WARNING, logger="bus"):
            await bus_to(server)
            assert "power cut" not in caplog.text
            monkeypatch.setattr(connecting, "NAME_PREFIX", "another")
            await bus_to(open_server)
            assert "sync_interval: always" in caplog.text
            caplog.clear()
            monkeypatch.setattr(connecting, "_MONITORING_PORT", int(open_server.monitoring_url.rsplit(":", 1)[1]))
            await bus_to(open_server)
            assert "power cut" not in caplog.text
