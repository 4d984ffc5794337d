from __future__ import annotations

import asyncio
import json
import signal
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

TOKEN = "0123456789abcdef-own-token-canary"
GUIDE = "secure-management-token-change-in-production"
BODY = {"reason": "LOW_FLEET_CPU_LOAD", "timestamp": "2025-07-12T10:30:45Z", "grace_period_seconds": 30}


def management(node, path="/control/terminate"):
    return f"http://127.0.0.1:{node.management}{path}"


def bearer(token=TOKEN):
    return {"Authorization": f"Bearer {token}"}


async def ask(node, path, *, method="GET", token=TOKEN, **kwargs):
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, management(node, path), headers=bearer(token), **kwargs) as response,
    ):
        text = await response.text()
        return response.status, json.loads(text) if text else None


async def test_a_node_without_join_file_registers_heartbeats_and_leaves_as_the_guide_has_it(
    orchestrator, node_process, upstream, client, until
):
    node = await node_process(
        node=f'server_url = "{orchestrator.url}"\nbackend = "{await upstream()}"', management=f'auth_token = "{TOKEN}"'
    )
    await until(lambda: len(orchestrator.heartbeats) >= 3)
    first = orchestrator.registrations[0]
    assert first["public_ip"] == "127.0.0.1"
    assert first["config"]["node_type"] == "mitigation-node"
    assert "join" not in first
    beat = orchestrator.heartbeats[-1]
    assert beat["status"] == "Active"
    assert set(beat["metrics"]) == {
        "cpu_usage", "memory_usage", "packets_per_second", "active_connections", "total_requests", "ddos_blocks",
        "waf_blocks",
    }  # fmt: skip
    assert 1 < beat["metrics"]["memory_usage"] <= 100  # percent
    async with client.get(f"https://127.0.0.1:{node.proxy}/hello") as response:
        assert (await response.json())["path"] == "/hello"
    status, answer = await ask(node, "/control/terminate", method="POST", json=BODY)
    assert status == 202
    assert answer == {
        "success": True,
        "message": "Graceful shutdown initiated with 30 second grace period",
        "grace_period_seconds": 30,
    }
    assert await node.ended() == 0
    statuses = [beat["status"] for beat in orchestrator.heartbeats]
    assert statuses[-1] == "Terminating"
    assert "Draining" in statuses
    assert "Starting" not in statuses
    assert statuses.index("Draining") > statuses.index("Active")
    assert len(orchestrator.registrations) == 1
    assert not (node.directory / "state" / "drain.json").exists()


async def test_sigterm_is_a_drain_that_finishes_what_is_in_flight(orchestrator, node_process, upstream, client, until):
    node = await node_process(
        node=f'server_url = "{orchestrator.url}"\nbackend = "{await upstream()}"', management=f'auth_token = "{TOKEN}"'
    )
    await until(lambda: orchestrator.heartbeats)
    slow = asyncio.create_task(client.get(f"https://127.0.0.1:{node.proxy}/slow?ms=1500"))
    await asyncio.sleep(0.3)
    node.process.send_signal(signal.SIGTERM)
    response = await slow
    assert response.status == 200
    response.release()
    assert await node.ended() == 0
    assert orchestrator.heartbeats[-1]["status"] == "Terminating"


async def test_a_second_sigterm_ends_the_wait(orchestrator, node_process, upstream, client, until):
    node = await node_process(
        node=f'server_url = "{orchestrator.url}"\nbackend = "{await upstream()}"', management=f'auth_token = "{TOKEN}"'
    )
    await until(lambda: orchestrator.heartbeats)
    slow = asyncio.create_task(client.get(f"https://127.0.0.1:{node.proxy}/slow?ms=60000"))
    await asyncio.sleep(0.3)
    node.process.send_signal(signal.SIGTERM)
    await until(lambda: "Listener closed" in node.output)
    assert node.running()
    node.process.send_signal(signal.SIGTERM)
    assert await node.ended(10) == 0
    with pytest.raises(aiohttp.ClientError):
        await slow
    assert orchestrator.heartbeats[-1]["status"] == "Terminating"


async def test_a_node_joins_once_with_its_file_and_keeps_what_it_gets_in_private_files(
    orchestrator, node_process, tmp_path, until
):
    join = orchestrator.join_file(tmp_path / "join.json")
    node = await node_process(node=f'join_file = "{tmp_path}/join.json"')
    await until(lambda: "Registered as" in node.output)
    registered = orchestrator.registrations[0]["join"]
    assert registered["node_id"] == join["node_id"]
    assert registered["pool"] == "web"
    assert registered["nats_public_key"].startswith("U")
    assert registered["listening"] == {
        "proxy_port": node.proxy,
        "management_port": node.management,
        "metrics_port": node.metrics,
    }
    assert not (tmp_path / "join.json").exists()
    state = node.directory / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for file in (state / "credentials.json", state / "nats.seed", state / "tls" / "proxy.key"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert (await ask(node, "/health", token=orchestrator.token))[0] == 200
    assert (await ask(node, "/health", token=TOKEN))[0] == 401


async def test_a_restarted_node_is_the_same_node_and_shows_its_token_instead_of_a_secret(
    orchestrator, node_process, tmp_path, until
):
    join = orchestrator.join_file(tmp_path / "join.json")
    first = await node_process(node=f'join_file = "{tmp_path}/join.json"')
    await until(lambda: "Registered as" in first.output)
    first.process.kill()
    await first.ended()
    second = await node_process(node=f'join_file = "{tmp_path}/join.json"')
    await until(lambda: len(orchestrator.registrations) == 2)
    again = orchestrator.registrations[1]["join"]
    assert again["node_id"] == join["node_id"]
    assert again["nats_public_key"] == orchestrator.registrations[0]["join"]["nats_public_key"]
    assert again["boot_id"] != orchestrator.registrations[0]["join"]["boot_id"]
    assert "secret" not in again
    assert orchestrator.authorizations[1] == f"Bearer {orchestrator.token}"
    assert second.running()


async def test_with_the_orchestrator_away_a_restarted_node_serves_all_the_same(
    orchestrator, node_process, tmp_path, upstream, client, until
):
    orchestrator.join_file(tmp_path / "join.json")
    backend = f'backend = "{await upstream()}"'
    first = await node_process(node=f'join_file = "{tmp_path}/join.json"\n{backend}')
    await until(lambda: "Registered as" in first.output)
    first.process.kill()
    await first.ended()
    orchestrator.answers = [503] * 100
    second = await node_process(node=backend)
    await until(lambda: len(orchestrator.registrations) >= 2)
    async with client.get(f"https://127.0.0.1:{second.proxy}/x") as response:
        assert response.status == 200
    assert (await ask(second, "/health", token=orchestrator.token))[0] == 200


@pytest.mark.parametrize("status", [401, 403, 409])
async def test_a_refused_secret_ends_the_start_with_a_sentence(status, orchestrator, node_process, tmp_path):
    orchestrator.join_file(tmp_path / "join.json")
    orchestrator.answers = [status]
    node = await node_process(node=f'join_file = "{tmp_path}/join.json"')
    assert await node.ended() == 4
    assert "error[JOIN_REFUSED]" in node.output
    assert "Traceback" not in node.output


async def test_an_orchestrator_that_is_late_is_waited_for(orchestrator, node_process, tmp_path, until):
    orchestrator.join_file(tmp_path / "join.json")
    orchestrator.answers = [503, 404]
    node = await node_process(node=f'join_file = "{tmp_path}/join.json"')
    await until(lambda: "Registered as" in node.output)
    assert len(orchestrator.registrations) == 3
    assert (tmp_path / "join.json").exists() is False


async def test_a_node_that_the_orchestrator_has_forgotten_registers_anew(orchestrator, node_process, until):
    node = await node_process(node=f'server_url = "{orchestrator.url}"', management=f'auth_token = "{TOKEN}"')
    await until(lambda: orchestrator.heartbeats)
    orchestrator.known.clear()
    await until(lambda: len(orchestrator.registrations) == 2)
    count = len(orchestrator.heartbeats)
    await until(lambda: len(orchestrator.heartbeats) > count + 2)
    assert orchestrator.heartbeats[-1]["node_id"] in orchestrator.known
    assert orchestrator.heartbeats[-1]["status"] == "Active"
    assert node.running()


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ('auth_token = "changeme"', "SECRET_PLACEHOLDER"),
        ('auth_token = "$(openssl rand -hex 32)"', "SECRET_PLACEHOLDER"),
        ('auth_token = "${MANAGEMENT_TOKEN}"', "SECRET_PLACEHOLDER"),
        (f'auth_token = "{GUIDE}"', "SECRET_PLACEHOLDER"),
        ("", "MANAGEMENT_TOKEN_MISSING"),
    ],
)
async def test_a_missing_or_public_token_stops_the_start(settings, code, orchestrator, node_process):
    node = await node_process(node=f'server_url = "{orchestrator.url}"', management=settings)
    assert await node.ended() == 2
    assert f"error[{code}]" in node.output
    assert "Traceback" not in node.output
    assert not orchestrator.registrations


async def test_the_guides_token_works_where_it_is_knowingly_allowed(orchestrator, node_process, until):
    node = await node_process(
        node=f'server_url = "{orchestrator.url}"',
        management=f'auth_token = "{GUIDE}"\nallow_default_token = true',
    )
    await until(lambda: orchestrator.heartbeats)
    status, _ = await ask(node, "/control/terminate", method="POST", token=GUIDE, json=BODY)
    assert status == 202
    assert await node.ended() == 0


@pytest.mark.parametrize("key", ["proxy", "management", "metrics"])
async def test_a_taken_port_stops_the_start_with_its_name(key, orchestrator, node_process):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node = await node_process(
            node=f'server_url = "{orchestrator.url}"', management=f'auth_token = "{TOKEN}"', addresses={key: address}
        )
        assert await node.ended() == 2
    assert "error[PORT_IN_USE]" in node.output
    assert address in node.output
    assert "Traceback" not in node.output


@pytest.mark.parametrize("key", ["management", "metrics"])
async def test_plain_http_beyond_loopback_is_refused(key, orchestrator, node_process, unused_port):
    address = f"0.0.0.0:{unused_port()}"
    node = await node_process(
        node=f'server_url = "{orchestrator.url}"', management=f'auth_token = "{TOKEN}"', addresses={key: address}
    )
    assert await node.ended() == 2
    assert "error[BIND_INSECURE]" in node.output
    assert address in node.output


async def test_an_address_of_another_machine_is_named(orchestrator, node_process):
    node = await node_process(
        node=f'server_url = "{orchestrator.url}"',
        management=f'auth_token = "{TOKEN}"',
        addresses={"proxy": "192.0.2.1:8443"},
    )
    assert await node.ended() == 2
    assert "error[ADDRESS_UNAVAILABLE]" in node.output


async def test_two_nodes_never_share_a_state_directory(orchestrator, node_process, until):
    settings = {"node": f'server_url = "{orchestrator.url}"', "management": f'auth_token = "{TOKEN}"'}
    await node_process(**settings)
    await until(lambda: orchestrator.heartbeats)
    second = await node_process(**settings)
    assert await second.ended() == 2
    assert "error[STATE_IN_USE]" in second.output
    assert "another node" in second.output


async def test_an_unfinished_ordered_drain_goes_on_after_a_crash(
    orchestrator, node_process, tmp_path, upstream, client, until
):
    orchestrator.join_file(tmp_path / "join.json")
    backend = f'backend = "{await upstream()}"'
    first = await node_process(node=f'join_file = "{tmp_path}/join.json"\n{backend}')
    await until(lambda: "Registered as" in first.output)
    slow = asyncio.create_task(client.get(f"https://127.0.0.1:{first.proxy}/slow?ms=60000"))
    await asyncio.sleep(0.2)
    assert (await ask(first, "/control/terminate", method="POST", token=orchestrator.token, json=BODY))[0] == 202
    first.process.kill()
    await first.ended()
    with pytest.raises(aiohttp.ClientError):
        await slow
    second = await node_process(node=backend)
    assert await second.ended() == 0
    assert "ordered before a restart" in second.output


async def test_a_second_terminate_keeps_the_deadline_and_resume_is_possible_until_the_listener_closes(
    orchestrator, node_process, upstream, client, until
):
    node = await node_process(
        node=f'server_url = "{orchestrator.url}"\nbackend = "{await upstream()}"',
        management=f'auth_token = "{TOKEN}"\nshutdown_grace_period = 20',
    )
    config = node.directory / "node.toml"
    await until(lambda: orchestrator.heartbeats)
    config.write_text(config.read_text().replace("propagation_seconds = 0.2", "propagation_seconds = 5"))
    node.process.send_signal(signal.SIGHUP)
    await until(lambda: "Configuration reloaded" in node.output)
    for grace in (600, 5, 0):
        body = {**BODY, "grace_period_seconds": grace}
        status, answer = await ask(node, "/control/terminate", method="POST", json=body)
        assert (status, answer["grace_period_seconds"]) == (202, 20)
    assert (await ask(node, "/ready"))[0] == 503
    assert (await ask(node, "/health"))[0] == 200
    status, answer = await ask(node, "/api/v1/status")
    assert answer["status"] == "draining"
    assert 15 < answer["drain_remaining_seconds"] <= 20
    assert (await ask(node, "/control/resume", method="POST", json={"reason": "needed"}))[0] == 200
    assert (await ask(node, "/ready"))[0] == 200
    await until(lambda: orchestrator.heartbeats[-1]["status"] == "Active")
    slow = asyncio.create_task(client.get(f"https://127.0.0.1:{node.proxy}/slow?ms=3000"))
    await asyncio.sleep(0.2)
    body = {**BODY, "grace_period_seconds": 1}  # propagation is cut to half of it
    assert (await ask(node, "/control/terminate", method="POST", json=body))[0] == 202
    await until(lambda: "Listener closed" in node.output)
    status, problem = await ask(node, "/control/resume", method="POST", json={})
    assert (status, problem["code"]) == (409, "DRAIN_TOO_LATE")
    assert await node.ended() == 0
    with pytest.raises(aiohttp.ClientError):
        await slow


async def test_metrics_have_our_names_and_the_originals(orchestrator, node_process, upstream, client, until):
    node = await node_process(
        node=f'server_url = "{orchestrator.url}"\nbackend = "{await upstream()}"', management=f'auth_token = "{TOKEN}"'
    )
    await until(lambda: orchestrator.heartbeats)
    for path in ("/a", "/status/500"):
        async with client.get(f"https://127.0.0.1:{node.proxy}{path}") as response:
            await response.read()
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{node.metrics}/metrics") as response:
        lines = (await response.text()).splitlines()
    for line in (
        "secbeat_node_requests_total 2.0",
        "secbeat_node_requests_proxied_total 2.0",
        "secbeat_node_responses_failed_total 1.0",
        "secbeat_node_draining 0.0",
        "https_requests_received 2.0",
        "requests_proxied 2.0",
        "http_errors_total 1.0",
        "tls_handshakes_completed 1.0",
    ):
        assert line in lines, line


async def test_no_secret_is_ever_written_to_the_log_or_the_process_list(orchestrator, node_process, tmp_path, until):
    orchestrator.join_file(tmp_path / "join.json")
    secret = orchestrator.secret
    node = await node_process(node=f'join_file = "{tmp_path}/join.json"')
    await until(lambda: "Registered as" in node.output)
    seed = (node.directory / "state" / "nats.seed").read_text().strip()
    await ask(node, "/control/terminate", method="POST", token="wrong-token-canary", json=BODY)
    proc = Path(f"/proc/{node.process.pid}")
    command = b"".join((proc / name).read_bytes() for name in ("cmdline", "environ")).decode()
    await ask(node, "/control/terminate", method="POST", token=orchestrator.token, json=BODY)
    assert await node.ended() == 0
    for canary in (secret, orchestrator.token, seed, "wrong-token-canary"):
        assert canary not in node.output
        assert canary not in command
    left = [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert left == []


async def test_a_node_that_never_joined_ends_at_once_when_told_to(node_process, unused_port, until):
    node = await node_process(
        node=f'server_url = "http://127.0.0.1:{unused_port()}"\npropagation_seconds = 60',
        management=f'auth_token = "{TOKEN}"\nshutdown_grace_period = 120',
    )
    await until(lambda: "Not joined yet" in node.output)
    node.process.terminate()
    assert await node.ended(10) == 0
