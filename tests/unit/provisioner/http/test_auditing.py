"""Each call that changes something here is one event of the audit, walked from the document that is served."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import TestClient, TestServer

from provisioner.engine.blueprints import Blueprints
from provisioner.engine.project import Project
from provisioner.jobs.logfile import LogHub
from provisioner.parts import Parts
from provisioner.secrets import Secrets
from secbeat import ids
from secbeat.auditing import Audit
from secbeat.auth import Principal
from secbeat.clock import SystemClock
from secbeat.paths import StateDir
from secbeat.settings import BlueprintSettings, ProvisionerSettings, Settings
from secbeat.testing import MemoryBucket, MemoryLedger, MemoryMessaging, MemoryQueue
from secbeat.wire.jobs import JobRecord

TOKENS = {"operate-token": Principal("op", "operate"), "read-token": Principal("reader", "read")}


@pytest.fixture
async def site(tmp_path, project):
    chosen = Settings(provisioner=ProvisionerSettings(), blueprints={"default": BlueprintSettings()})
    parts = Parts(
        settings=chosen, state=StateDir(tmp_path), secrets=Secrets(()), hub=LogHub(tmp_path / "jobs"),
        blueprints=Blueprints(chosen.blueprints, Project(project), tmp_path / "revisions"), engine=None, joins=None,
        bucket=MemoryBucket(), queue=MemoryQueue(), messaging=MemoryMessaging(), clock=SystemClock(),
    )  # fmt: skip
    audit = Audit(ledger=MemoryLedger(), service="provisioner")
    async with TestClient(TestServer(parts.application(TOKENS.get, lambda: {"nats": None}, audit))) as client:
        yield client, parts, audit


async def test_a_cancel_is_one_event_done_or_refused(site):
    client, parts, audit = site
    now = SystemClock().now()
    job = JobRecord(
        op_id=ids.new_op_id(), cluster_id=ids.new_node_id(), action="create", pool="default",
        node_id=ids.new_node_id(), created_at=now, deadline=now,
    )  # fmt: skip
    await parts.store.create(job)
    paths = (await (await client.get("/api/openapi.json")).json())["paths"]
    changing = [(path, method) for path in paths for method, one in paths[path].items() if one.get("x-secbeat-changes")]
    assert ("/jobs/{op_id}/cancel", "post") in changing
    for path, method in changing:
        where = path.replace("{op_id}", job.op_id)
        for token, who, allowed in (("operate", "op", True), ("read", "reader", False), ("no", "anonymous", False)):
            headers = {"Authorization": f"Bearer {token}-token"}
            status = (await client.request(method, where, headers=headers, json={})).status
            event = (await audit.newest(100))[-1]
            assert (event.who, event.status, event.what) == (who, status, f"{method.upper()} {where}")
            assert (status < 400) == allowed
            assert event.service == "provisioner"
            assert (event.before, event.after is not None) == (
                ({"state": "queued"}, True) if allowed else (None, False)
            )
    assert len(await audit.newest(100)) == 3 * len(changing)
    read = await Audit(ledger=audit._ledger).newest(100)
    assert [event.service for event in read] == ["provisioner"] * 3 * len(changing), "the orchestrator shows them too"
