"""The HTTP surface of a provisioner whose outside is in memory."""

from __future__ import annotations

import asyncio
import json
import time
from ipaddress import ip_network

import pytest
from aiohttp.test_utils import TestClient, TestServer

from provisioner.engine.blueprints import Blueprints
from provisioner.engine.project import Project
from provisioner.jobs.logfile import LogHub
from provisioner.parts import Parts
from provisioner.secrets import Secrets
from secbeat import ids, signing
from secbeat.api import openapi
from secbeat.auth import Principal
from secbeat.clock import SystemClock
from secbeat.paths import StateDir
from secbeat.settings import BlueprintSettings, ProvisionerSettings, Settings
from secbeat.store import Unavailable
from secbeat.testing import MemoryBucket, MemoryMessaging, MemoryQueue

NEW, OLD = signing.new_secret(), signing.new_secret()
LONG_AGO = 10_000
JSON = "application/json"


class Site:
    """Client and parts."""

    def __init__(self, root, client, parts, bucket, queue):
        self.root, self.client, self.parts, self.bucket, self.queue = root, client, parts, bucket, queue
        self.cluster_id = ids.new_cluster_id()

    def body(self, **changes):
        moment = SystemClock().now().isoformat()
        later = SystemClock().now().timestamp() + 600
        operation = {
            "v": 1, "cluster_id": self.cluster_id, "op_id": ids.new_op_id(), "action": "create", "pool": "default",
            "node_id": ids.new_node_id(), "epoch": 1, "issued_at": moment, "deadline": later,
        }  # fmt: skip
        reason = changes.pop("reason", "HIGH_FLEET_CPU_LOAD")
        return {"reason": reason, "timestamp": moment, "operation": operation | changes}

    async def post(
        self, body, *, secret=NEW, path="/provision", at=None, headers=None, msg_id=None, kind="application/json"
    ):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": kind} if kind else {}
        if secret is not None:
            name = msg_id or body["operation"]["op_id"]
            sent |= signing.headers(secret, msg_id=name, timestamp=int(at or time.time()), body=raw)
        async with self.client.post(path, data=raw, headers=sent | (headers or {})) as answer:
            text = await answer.text()
            await self.check_documented("POST", path, answer)
            return answer.status, json.loads(text) if text else {}, answer.headers

    async def get(self, path, **kwargs):
        async with self.client.get(path, **kwargs) as answer:
            body = await answer.read()
            await self.check_documented("GET", path, answer)
            return answer.status, body

    async def check_documented(self, method, path, answer):
        """No answer of any test may be one that the OpenAPI document does not have."""
        async with self.client.get("/api/openapi.json") as described:
            doc = await described.json()
        operation = openapi.operation_at(doc, method, path.partition("?")[0])
        if operation is None:
            return
        assert str(answer.status) in operation["responses"], f"{method} {path} -> {answer.status} is not documented"
        if answer.content_length:
            content = operation["responses"][str(answer.status)].get("content", {})
            assert answer.content_type in content, f"{method} {path} -> {answer.status} {answer.content_type}"


@pytest.fixture
async def make_site(tmp_path, project):
    clients = []

    async def make(*, webhook=(NEW, OLD), **settings):
        chosen = Settings(
            provisioner=ProvisionerSettings(**settings),
            blueprints={"default": BlueprintSettings(variables={"image_password": "not-to-be-shown"})},
        )
        bucket, queue = MemoryBucket(), MemoryQueue()
        parts = Parts(
            settings=chosen, state=StateDir(tmp_path), secrets=Secrets(webhook), hub=LogHub(tmp_path / "jobs"),
            blueprints=Blueprints(chosen.blueprints, Project(project), tmp_path / "revisions"), engine=None, joins=None,
            bucket=bucket, queue=queue, messaging=MemoryMessaging(), clock=SystemClock(),
        )  # fmt: skip
        tokens = {"operate-token": Principal("op", "operate"), "read-token": Principal("reader", "read")}
        client = TestClient(TestServer(parts.application(tokens.get, lambda: {"nats": None})))
        await client.start_server()
        clients.append(client)
        return Site(tmp_path, client, parts, bucket, queue)

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
async def site(make_site):
    return await make_site()


async def jobs(site):
    return (await site.parts.store.jobs()) or []


async def test_a_signed_request_is_accepted_then_known(site):
    body = site.body()
    status, answer, _ = await site.post(body)
    assert status == 202
    assert answer == {
        "status": "accepted",
        "op_id": body["operation"]["op_id"],
        "node_id": body["operation"]["node_id"],
        "job": None,
    }
    status, answer, _ = await site.post(body)
    assert (status, answer["status"], answer["job"]["state"]) == (200, "known", "queued")


@pytest.mark.parametrize("secret", [NEW, OLD], ids=["new", "old"])
async def test_two_secrets_are_valid_during_a_rotation(site, secret):
    assert (await site.post(site.body(), secret=secret))[0] == 202


async def test_destroy_goes_to_its_own_door(site):
    assert (await site.post(site.body(action="destroy"), path="/deprovision"))[0] == 202
    status, answer, _ = await site.post(site.body(action="destroy"))
    assert (status, answer["code"]) == (422, "WEBHOOK_ACTION")
    assert (await site.post(site.body(), path="/deprovision"))[0] == 422


async def forged(site, **changes):
    status, answer, _ = await site.post(site.body(), **changes)
    assert await jobs(site) == []
    return status, answer["code"]


async def test_a_request_that_claims_to_be_signed_and_fails_is_never_taken_for_an_unsigned_one(site):
    assert await forged(site, secret=signing.new_secret()) == (401, "SIGNATURE_INVALID")
    assert await forged(site, at=time.time() - LONG_AGO) == (401, "SIGNATURE_EXPIRED")
    assert await forged(site, at=time.time() + LONG_AGO) == (401, "SIGNATURE_EXPIRED")
    assert await forged(site, headers={"webhook-signature": ""}) == (401, "SIGNATURE_INVALID")
    assert await forged(site, secret=None, headers={"webhook-id": "x"}) == (401, "SIGNATURE_MISSING")
    assert await forged(site, secret=None, headers={"Webhook-Signature": "v1,x"}) == (401, "SIGNATURE_MISSING")


async def test_a_changed_body_does_not_match_its_signature(site):
    body = site.body()
    headers = signing.headers(NEW, msg_id=body["operation"]["op_id"], timestamp=int(time.time()), body=b"{}")
    assert (await site.post(body, secret=None, headers=headers))[0] == 401


async def test_without_a_secret_of_its_own_the_service_accepts_no_signature(make_site):
    site = await make_site(webhook=())
    assert (await site.post(site.body()))[:1] == (401,)


async def test_an_id_other_than_the_operations_is_refused(site):
    status, answer, _ = await site.post(site.body(), msg_id=ids.new_op_id())
    assert (status, answer["code"]) == (422, "WEBHOOK_ID")


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": "../../etc"}, {"pool": "{{ x }}"}, {"node_id": "1"}, {"node_id": "--help"}, {"op_id": "../x"},
        {"cluster_id": "C"}, {"action": "explode"}, {"epoch": -1}, {"epoch": "{{ 1 }}"}, {"blueprint": "../x"},
        {"blueprint": "unknown"}, {"deadline": "soon"}, {"reason": "{{ lookup('pipe','id') }}"}, {"reason": "x" * 100},
    ],
)  # fmt: skip
async def test_a_hostile_or_malformed_field_is_422_and_makes_no_job(site, changes):
    body = site.body(**changes)
    status, answer, _ = await site.post(body, msg_id=body["operation"]["op_id"].replace(".", ""))
    assert status == 422, answer
    assert await jobs(site) == []


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b"", 400), (b"{", 400), (b"\xff\xfe", 400), (b"[" * 30_000, 400), (b"[]", 422), (b"null", 422), (b"{}", 422)],
)
async def test_a_body_that_is_no_webhook_gets_its_status(site, raw, status):
    assert (await site.post(raw, msg_id="x"))[0] == status
    assert (await site.post(raw, secret=None))[0] == status


async def test_a_large_body_is_refused_before_it_is_read(site):
    assert (await site.post(b"x" * 65537, secret=None))[0] == 413

    async def endless():
        while True:
            yield b"x" * 8192

    async with site.client.post("/provision", data=endless(), headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 413


async def test_the_content_type_must_be_json(site):
    status, answer, _ = await site.post(site.body(), kind="text/plain")
    assert (status, answer["code"]) == (415, "CONTENT_TYPE")


async def test_a_foreign_host_name_is_refused(site):
    assert (await site.post(site.body(), headers={"Host": "evil.example"}))[0] == 403


async def test_refusals_with_a_time_to_come_back_carry_retry_after(make_site):
    site = await make_site(max_creations_per_minute=1)
    await site.post(site.body())
    status, answer, headers = await site.post(site.body())
    assert (status, answer["code"]) == (429, "CREATION_RATE")
    assert 1 <= int(headers["Retry-After"]) <= 60


async def test_a_store_that_is_away_is_503_with_retry_after(site):
    site.bucket.next_error = Unavailable("away")
    status, answer, headers = await site.post(site.body())
    assert (status, answer["code"], headers["Retry-After"]) == (503, "STATE_UNAVAILABLE", "5")
    site.bucket.next_error = Unavailable("away")
    raw = json.dumps({"reason": "X", "timestamp": "2026-01-01T00:00:00Z"}).encode()
    assert (await site.post(raw, secret=None))[0] == 503


async def test_a_lower_epoch_is_409(site):
    await site.post(site.body(epoch=7))
    status, answer, _ = await site.post(site.body(epoch=6))
    assert (status, answer["code"]) == (409, "EPOCH_TOO_LOW")


# ---------------------------------------------------------------- unsigned senders

GUIDE = {
    "reason": "HIGH_FLEET_CPU_LOAD",
    "timestamp": "2026-01-01T00:00:00Z",
    "fleet_metrics": {"active_nodes": 2, "avg_cpu_usage": 0.85, "avg_memory_usage": 0.65, "total_connections": 150},
}


async def test_the_guides_payload_is_accepted_from_loopback(site):
    status, answer, _ = await site.post(GUIDE, secret=None)
    assert status == 202
    (job,) = await jobs(site)
    assert (job.op_id, job.node_id, job.signed) == (answer["op_id"], answer["node_id"], False)


async def test_unsigned_senders_from_elsewhere_are_refused(make_site):
    site = await make_site(unsigned_senders=[ip_network("192.0.2.0/24")])
    status, answer, _ = await site.post(GUIDE, secret=None)
    assert (status, answer["code"]) == (401, "SIGNATURE_MISSING")
    assert await jobs(site) == []


async def test_an_unsigned_operation_or_teardown_is_refused(site):
    assert (await site.post(site.body(), secret=None))[0] == 401
    assert (await site.post(GUIDE, secret=None, path="/deprovision"))[0] == 401
    assert await jobs(site) == []


async def test_a_forwarded_address_does_not_make_a_sender_local(make_site):
    site = await make_site(unsigned_senders=[ip_network("192.0.2.0/24")])
    assert (await site.post(GUIDE, secret=None, headers={"X-Forwarded-For": "192.0.2.1"}))[0] == 401


# ---------------------------------------------------------------- reading


async def test_jobs_are_listed_newest_first_and_filtered(site):
    for pool in ("default", "default", "other"):
        await site.post(site.body(pool=pool))
    listed = json.loads((await site.get("/jobs"))[1])
    found = [job["op_id"] for job in listed["items"]]
    assert found == sorted(found, reverse=True)
    assert len(found) == 3
    assert listed["next"] is None
    assert len(json.loads((await site.get("/jobs?newest=1"))[1])["items"]) == 1
    assert len(json.loads((await site.get("/jobs?pool=other&open=1"))[1])["items"]) == 1
    assert (await site.get("/jobs?newest=-1"))[0] == 422


@pytest.mark.parametrize("op_id", ["nope", "..%2F..%2Fetc", "01J00000000000000000000000"])
async def test_a_job_that_is_not_there_is_404(site, op_id):
    for path in (f"/jobs/{op_id}", f"/jobs/{op_id}/log"):
        assert (await site.get(path))[0] == 404


async def test_cancelling_needs_the_scope_and_ends_a_waiting_job(site):
    body = site.body()
    await site.post(body)
    url = f"/jobs/{body['operation']['op_id']}/cancel"
    for token, status in ((None, 401), ("read-token", 403), ("operate-token", 202), ("operate-token", 409)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with site.client.post(url, headers=headers) as answer:
            assert answer.status == status
    (job,) = await jobs(site)
    assert job.state == "cancelled"


async def test_a_followed_log_grows_with_the_file_and_ends_with_the_job(site):
    body = site.body()
    await site.post(body)
    op_id = body["operation"]["op_id"]
    path = site.parts.hub.path(op_id)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one\n")
    async with site.client.get(f"/jobs/{op_id}/log?offset=1&follow=1") as answer:
        assert await answer.content.readexactly(3) == b"ne\n"
        with path.open("ab") as file:
            file.write(b"two\n")
        site.parts.hub.changed(op_id)
        async with asyncio.timeout(5):
            assert await answer.content.readexactly(4) == b"two\n"
            await site.parts.worker.request_cancel(op_id)
            assert await answer.content.read() == b""


async def test_blueprints_show_names_of_variables_and_no_values(site):
    status, content = await site.get("/blueprints")
    assert status == 200
    assert b"not-to-be-shown" not in content
    (shown,) = json.loads(content)["items"]
    assert (shown["name"], shown["variables"]) == ("default", ["image_password"])


async def test_machines_of_a_target_that_no_blueprint_has_are_404(site):
    assert (await site.get("/machines?target=moon"))[0] == 404


async def test_metrics_count_answers(site):
    await site.post(site.body())
    await site.post(GUIDE, secret=None, path="/deprovision")
    content = (await site.get("/metrics"))[1].decode()
    assert 'secbeat_provisioner_webhooks_total{action="create",status="202"} 1.0' in content
    assert 'secbeat_provisioner_webhooks_total{action="destroy",status="401"} 1.0' in content
    assert "secbeat_provisioner_open_jobs 1.0" in content
