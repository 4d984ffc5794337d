"""A site with a node, and what must be true of it after every campaign."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests

from tests.acceptance.fuzz.hostile import STREAMS, throw_all
from tests.integration.api.site import NODE_TOKEN, Site, until

# pytest-asyncio would else ask Python 3.11 for a loop that nobody closes.
asyncio.set_event_loop(None)

GROWTH_MIB = 24.0  # a bound, above what a warm process keeps; a leak of a campaign's bodies is larger


class Watched(Site):
    """A site whose services are compared before and after a campaign."""

    def resident_mib(self) -> dict[str, float]:
        return {
            name: psutil.Process(process.pid).memory_info().rss / 2**20
            for name, process in self.processes.items()
            if name != "nats"
        }

    def state(self) -> dict[str, Any]:
        """Everything that a request could have changed, without what changes by itself."""
        pool = self.get("/api/v1/pools/default").json()
        nodes = self.get("/api/v1/nodes?all=1").json()
        operations = self.get("/api/v1/operations").json()["items"]
        blueprints = self.get("/blueprints", base=self.provisioner).json()
        return {
            "pool": {key: pool[key] for key in ("min", "max", "desired", "override", "retired")},
            "paused": pool["pause"]["direction"],
            "nodes": sorted((node["node_id"], node["pool"], node["protected"], node["legacy"]) for node in nodes),
            "operations": sorted(one["op_id"] for one in operations),
            "jobs": sorted(one["op_id"] for one in self.get("/jobs", base=self.provisioner).json()["items"]),
            "blocked": self.get("/api/v1/rules/blocked_ips").json()["stats"],
            "blueprints": [one["digest"] for one in blueprints["items"]],
        }

    def answers(self) -> None:
        """Every listener does its work."""
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} has ended: {(self.directory / f'{name}.log').read_text()[-2000:]}"
        for base in (self.orchestrator, self.provisioner):
            until(lambda base=base: requests.get(f"{base}/readyz", timeout=10).status_code == 200, f"{base} is ready")
        assert self.get("/api/v1/nodes").status_code == 200
        management = {"Authorization": f"Bearer {NODE_TOKEN}"}
        health = f"http://127.0.0.1:{self.node['management']}/health"
        assert requests.get(health, headers=management, timeout=10).status_code == 200
        for port in (self.node["metrics"], self.scrape):
            assert "# HELP" in requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text

    @property
    def listeners(self) -> dict[str, int]:
        """The ports that speak HTTP."""
        return {
            "orchestrator": int(self.orchestrator.rpartition(":")[2]),
            "orchestrator metrics": self.scrape,
            "provisioner": int(self.provisioner.rpartition(":")[2]),
            "management": self.node["management"],
            "node metrics": self.node["metrics"],
            "proxy": self.node["proxy"],
        }

    def fill(self) -> None:
        """Something to be changed, in a pool that no longer changes by itself."""
        assert self.post("/api/v1/rules/block_ip", {"ip": "203.0.113.7", "reason": "test"}).json()["success"]
        assert self.post("/api/v1/pools/default/nodes", {}).status_code == 201
        assert self.post("/api/v1/pools/default/pause", {"direction": "both"}).status_code == 200
        until(lambda: self.get("/api/v1/jobs").json()["items"], "a job")
        until(lambda: not self.get("/api/v1/jobs?open=1").json()["items"], "the jobs' end")

    async def warm_up(self) -> None:
        """Whatever is loaded or grows once, at the first hostile request, is no leak."""
        await asyncio.gather(*(throw_all(self.listeners, raw, times=1) for raw in STREAMS.values()))

    @property
    def scrape(self) -> int:
        """The port of the orchestrator's metrics."""
        said = (self.directory / "orchestrator.log").read_text()
        return int(said.partition("metrics at http://")[2].partition(":")[2].partition(";")[0].split()[0])

    def failures(self) -> list[str]:
        """What the services' logs have of defects."""
        found = []
        for name in ("orchestrator", "provisioner", "node"):
            text = (self.directory / f"{name}.log").read_text()
            found += [f"{name}: {line}" for line in text.splitlines() if "Traceback" in line or '"INTERNAL"' in line]
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    made = Watched(tmp_path_factory.mktemp("fuzz"))
    try:
        made.start()
        made.start_node()
        until(lambda: any(n["status"] == "Active" for n in made.get("/api/v1/nodes").json()), "the node's heartbeat")
        made.fill()
        asyncio.run(made.warm_up())
        yield made
    finally:
        made.stop()


@pytest.fixture
def site(running: Watched) -> Iterator[Watched]:
    """The site; afterwards it answers, nothing was applied, memory is back and no log tells of a defect."""
    running.answers()
    before, memory, failed = running.state(), running.resident_mib(), len(running.failures())
    yield running
    running.answers()
    assert running.state() == before
    assert running.failures()[failed:] == []

    def back() -> bool:
        now = running.resident_mib()
        return all(now[name] - memory[name] < GROWTH_MIB for name in memory)

    until(back, f"memory is back: {memory} -> {running.resident_mib()}", seconds=20)
