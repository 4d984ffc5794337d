"""An original orchestrator above our provisioner and our node: one machine made, told to go, and torn down.

The orchestrator here answers and asks as the recorded original does: it knows no operation, gives the node an id of its
own, calls with the published token, and never asks for a teardown.
"""

from __future__ import annotations

import json
import uuid

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from provisioner.local import list_machines
from provisioner.local.directory import MachineDir
from provisioner.local.teardown import stop
from secbeat.bus.server import NatsServer
from tests.acceptance.crashes.fleet import eventually
from tests.acceptance.support import free_port

pytestmark = pytest.mark.timeout(180)

TOKEN = "secure-management-token-change-in-production"
CONFIG = """
[provisioner]
listen_addr = "127.0.0.1:{port}"
orchestrator_url = "{orchestrator}"
state_dir = "{state}"
[nats]
url = "{nats}"
[blueprints.default.variables]
secbeat_node_nats_url = "{nats}"
secbeat_node_management_token_file = "{token}"
secbeat_node_allow_default_token = true
secbeat_node_propagation_seconds = 0.5
"""


class Original:
    """What the original orchestrator says to a node (secbeat-contracts 4 and 5)."""

    def __init__(self) -> None:
        self.registered: list[dict] = []
        self.statuses: list[str] = []

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/v1/nodes/register", self._register)
        app.router.add_post("/api/v1/nodes/heartbeat", self._heartbeat)
        return app

    async def _register(self, request):
        self.registered.append(await request.json())
        urls = dict.fromkeys(("heartbeat_url", "control_url"), "http://127.0.0.1:3030/")
        return web.json_response({"node_id": str(uuid.uuid4()), "heartbeat_interval": 10, "endpoints": urls})

    async def _heartbeat(self, request):
        self.statuses.append((await request.json())["status"])
        return web.Response()


@pytest.fixture
async def nats(tmp_path):
    server = NatsServer(tmp_path / "nats", port=0, open_access=True)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def machines(place):
    """The directory of the local machines; what a failed test leaves there is ended."""
    directory = place.root / "state" / "machines"
    yield directory
    for path in directory.glob("*"):
        stop(MachineDir(path), grace=1)


async def test_an_originals_machine_is_made_told_to_go_and_torn_down(place, nats, machines):
    original = Original()
    token = place.write("management.token", TOKEN + "\n")
    port = free_port()
    async with TestServer(original.application()) as server, aiohttp.ClientSession() as session:
        config = CONFIG.format(
            port=port, orchestrator=str(server.make_url("")).rstrip("/"), state=place.root / "state",
            nats=nats.url, token=token,
        )  # fmt: skip
        service = place.start(["secbeat", "provisioner", "--config", place.write("secbeat.toml", config)])
        url = f"http://127.0.0.1:{port}"

        async def ready():
            async with session.get(f"{url}/readyz") as answer:
                return answer.status == 200

        await eventually(ready, "the provisioner")
        payload = {
            "reason": "PREDICTED_HIGH_FLEET_CPU_LOAD",
            "timestamp": "2026-01-01T00:00:00.123456789Z",
            "fleet_metrics": {
                "active_nodes": 1, "avg_cpu_usage": 85.5, "avg_memory_usage": 40.1, "total_connections": 3,
            },
            "prediction_info": {
                "predicted_cpu_usage": 0.8, "prediction_horizon_minutes": 10, "confidence": 0.6,
            },
        }  # fmt: skip
        async with session.post(f"{url}/provision", json=payload) as answer:
            assert answer.status == 202

        async def job(action):
            async with session.get(f"{url}/jobs") as listed:
                jobs = [one for one in (await listed.json())["items"] if one["action"] == action]
            return next((one for one in jobs if one["state"] in {"succeeded", "failed"}), None)

        created = await eventually(lambda: job("create"), "the machine to be made")
        assert created["state"] == "succeeded", f"{created['error']}\n{service.said()}"
        assert created["signed"] is False
        (machine,) = list_machines(machines)
        await eventually(lambda: original.registered and original.statuses, "the node to register and to report")
        assert original.registered[0]["public_ip"] == machine.address
        assert "join" not in original.registered[0]

        body = {"reason": "LOW_FLEET_CPU_LOAD", "timestamp": "2026-01-01T00:10:00Z", "grace_period_seconds": 60}
        async with session.post(
            f"http://{machine.address}:9999/control/terminate", json=body, headers={"Authorization": f"Bearer {TOKEN}"}
        ) as answer:
            assert answer.status == 202
        removed = await eventually(lambda: job("destroy"), "the teardown that nobody asked for", seconds=90)
        assert (removed["state"], removed["reason"]) == ("succeeded", "UNSIGNED_TEARDOWN"), json.dumps(removed)
        assert original.statuses[-1] == "Terminating"
        assert list_machines(machines) == []
        assert list(machines.iterdir()) == []
