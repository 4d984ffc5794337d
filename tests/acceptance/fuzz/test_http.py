"""Every HTTP listener under hostile input: it goes on answering, applies nothing and keeps nothing."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import pytest
import requests

from tests.acceptance.fuzz.hostile import BODIES, KINDS, STREAMS, noise, throw, throw_all
from tests.integration.api.site import NODE_TOKEN

pytestmark = pytest.mark.timeout(180)

UUID, OP = "3f0c9a52-8b1e-4c86-9d0e-6d1f4b7a2c11", "01JDG5Y3Q8V7N2M4K6H0T9R1WX"
ORCHESTRATOR = (
    "/api/v1/nodes/register", "/api/v1/nodes/heartbeat", "/api/v1/rules/block_ip", "/api/v1/pools/default/scale",
    "/api/v1/pools/default/pause", f"/api/v1/nodes/{UUID}/protect", f"/api/v1/nodes/{UUID}/drain",
    f"/api/v1/operations/{OP}/status",
)  # fmt: skip
# No body, any reason and unknown keys are good requests here.
TAKES_TEXT = {"/api/v1/pools/default/pause", f"/api/v1/nodes/{UUID}/drain", "resume"}


def test_a_hostile_body_is_refused_on_every_route_with_every_content_type(site):
    targets = [
        (site.orchestrator + path, path, {"Authorization": f"Bearer {site.tokens['admin']}"}) for path in ORCHESTRATOR
    ]
    targets += [(site.provisioner + path, path, {}) for path in ("/provision", "/deprovision")]
    management = f"http://127.0.0.1:{site.node['management']}"
    token = {"Authorization": f"Bearer {NODE_TOKEN}"}
    targets += [(f"{management}/control/{verb}", verb, token) for verb in ("terminate", "resume")]
    seen = set()
    for url, path, headers in targets:
        for name, body in BODIES.items():
            for kind in KINDS if name in {"a key twice", "nan"} else KINDS[:1]:
                if path in TAKES_TEXT and name in {"nothing", "nul bytes", "many keys"}:
                    continue
                answer = requests.post(url, data=body, headers={**headers, "Content-Type": kind}, timeout=20)
                seen.add(answer.status_code)
                assert 400 <= answer.status_code < 500, (url, name, kind, answer.status_code, answer.text[:200])
    assert {400, 413, 415, 422} <= seen


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_bytes_that_is_no_request_ends_and_the_next_request_is_answered(site, name):
    asyncio.run(throw_all(site.listeners, STREAMS[name], times=8))


def test_requests_with_bytes_changed_at_random_are_answered_or_closed(site):
    async def campaign() -> list[bytes]:
        answers = []
        for listener, port in site.listeners.items():
            raws = list(noise(20261125, 120))
            for start in range(0, len(raws), 40):
                answers += await asyncio.gather(
                    *(throw(port, raw, tls=listener == "proxy") for raw in raws[start : start + 40])
                )
        return answers

    statuses = {answer[9:12] for answer in asyncio.run(campaign()) if answer.startswith(b"HTTP/1.1 ")}
    assert b"400" in statuses
    # The node's proxy answers 502 to whatever it passes on: nothing listens behind it here.
    assert not statuses & {b"500", b"504"}, statuses


def test_wrong_tokens_in_masses_are_limited_and_lock_nobody_out(site):
    wrong = {"Authorization": "Bearer wrong"}
    for base, path in ((site.orchestrator, "/api/v1/pools"), (site.provisioner, "/jobs")):
        answers = [requests.get(base + path, headers=wrong, timeout=10) for _ in range(40)]
        assert answers[-1].status_code == 429
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        assert site.get(path, base=base).status_code == 200
    # The open routes of loopback do not ask for a token and are not concerned.
    assert requests.get(f"{site.orchestrator}/api/v1/nodes", timeout=10).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Host": "rebound.evil.example"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
    ids=["origin", "null origin", "cross-site", "rebound", "text", "form"],
)
def test_a_page_served_elsewhere_makes_no_open_route_act(site, headers):
    node = site.get("/api/v1/nodes").json()[0]["node_id"]
    metrics = dict.fromkeys(
        ("packets_per_second", "active_connections", "total_requests", "ddos_blocks", "waf_blocks"), 7
    )
    acts = {
        site.orchestrator + "/api/v1/rules/block_ip": {"ip": "203.0.113.99", "reason": "x"},
        site.orchestrator + "/api/v1/nodes/register": {
            "public_ip": "127.0.0.9", "config": {"node_type": "evil", "region": None, "tags": []}},
        site.orchestrator + "/api/v1/nodes/heartbeat": {
            "node_id": node, "status": "Active", "metrics": {**metrics, "cpu_usage": 99.0, "memory_usage": 1.0}},
        site.provisioner + "/provision": {"reason": "HIGH_FLEET_CPU_LOAD", "timestamp": "2026-11-25T03:00:00Z"},
    }  # fmt: skip
    for url, body in acts.items():
        sent = {"Content-Type": "application/json", **headers}
        answer = requests.post(url, data=json.dumps(body), headers=sent, timeout=10)
        assert answer.status_code in {403, 415}, (url, answer.status_code)


def test_readers_that_never_read_hold_no_memory_and_stop_nobody(site):
    """Fifty streams of events and twenty long lists that nobody reads, while others are served."""

    async def campaign():
        port = urlsplit(site.orchestrator).port
        token = f"Authorization: Bearer {site.tokens['read']}\r\n"
        writers = []
        for path in ["/api/v1/events?newest=10000"] * 50 + ["/api/v1/nodes"] * 20:
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.transport.pause_reading()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{token}\r\n".encode())
            writers.append(writer)
        for _ in range(300):
            # The same pause again: each is an event for every stream.
            answer = await asyncio.to_thread(site.post, "/api/v1/pools/default/pause", {"direction": "both"})
            assert answer.status_code == 200
        for writer in writers:
            writer.transport.abort()

    asyncio.run(campaign())


def test_senders_that_never_finish_stop_nobody(site):
    """A hundred heads and a hundred bodies of which a byte comes now and then."""

    async def campaign():
        halves = (b"POST /api/v1/rules/block_ip HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
                  (b"POST /api/v1/rules/block_ip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                   b'Content-Length: 1000\r\n\r\n{"ip": "203.0.113.99", "reason": "'))  # fmt: skip
        writers = []
        for number in range(200):
            port = urlsplit(site.orchestrator if number % 4 < 2 else site.provisioner).port
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(halves[number % 2])
            writers.append(writer)
        for _ in range(20):
            for writer in writers:
                writer.write(b"x")
            answer = await asyncio.to_thread(requests.get, f"{site.orchestrator}/api/v1/health", timeout=10)
            assert answer.elapsed.total_seconds() < 5
        for writer in writers:
            writer.transport.abort()

    asyncio.run(campaign())
