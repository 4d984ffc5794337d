"""An instance with a fleet under watch: gates that hold its playbooks, kills, and what there is at the end.

The gates stand in a copy of the project, as an operator's own play would have them: the play waits for a file.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from provisioner.local.directory import MachineDir
from provisioner.local.teardown import stop
from secbeat import bus, subjects
from secbeat.settings import NatsSettings
from secbeat.up import Instance

ROOT = Path(__file__).parents[3]
MARK = "SECBEAT_JOB"
GATES = ("create", "created", "destroy")

CONFIG = """
[orchestrator]
heartbeat_interval_seconds = 0.5
breaker_reset_seconds = 30
boot_retry_seconds = 1
[provisioner]
project_dir = "{project}"
[pools.default]
min = {min}
max = 3
scaling_check_interval_seconds = 0.5
# What else this machine does must not decide anything here.
scale_up_cpu_threshold = 1.0
scale_down_cpu_threshold = 0.0
scale_down_cooldown_seconds = 0
boot_deadline_seconds = 60
drain_deadline_seconds = 10
[blueprints.default]
variables = {{{variables}}}
"""


def project(directory: Path) -> Path:
    """A copy of our project whose plays wait for ``{{ gates }}/create``, ``created`` and ``destroy``."""
    for name in ("playbooks", "inventories"):
        shutil.copytree(ROOT / name, directory / name)
    for play, before, after in (("scale_up", "create", "created"), ("scale_down", "destroy", None)):
        path = directory / "playbooks" / f"{play}.yml"
        (content,) = yaml.safe_load(path.read_text())
        tasks = [_gate(before), *content["tasks"]]
        content["tasks"] = tasks if after is None else [*tasks[:-1], _gate(after), tasks[-1]]
        path.write_text(yaml.safe_dump([content], sort_keys=False))
    return directory


def _gate(name: str) -> dict[str, Any]:
    return {
        "name": f"Gate {name}",
        "ansible.builtin.wait_for": {"path": "{{ gates }}/" + name, "timeout": 100, "sleep": 1},
    }


async def eventually(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Poll until ``condition``, plain or async, gives something true; that is returned."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            # A service that was just killed does not answer: not now is not never.
            try:
                found = await found
            except Exception as error:
                if loop.time() > deadline:
                    raise AssertionError(f"{what}: not within {seconds:g} s: {error!r}") from error
                found = None
        if found:
            return found
        assert loop.time() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.05)


@dataclass
class Fleet:
    """One instance; every machine name and node process that ever shows up is remembered."""

    instance: Instance
    gates: Path
    names: set[str] = field(default_factory=set)
    processes: set[psutil.Process] = field(default_factory=set)
    _watcher: asyncio.Task[None] | None = None

    @classmethod
    def build(cls, home: Path, *, minimum: int = 1, config: str = CONFIG, **variables: Any) -> Fleet:
        gates = home / "gates"
        gates.mkdir()
        values = {"gates": str(gates), "secbeat_node_propagation_seconds": 0.5, **variables}
        text = config.format(
            project=project(home / "project"),
            min=minimum,
            variables=", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items()),
        )
        output = home / "output.log"

        def say(text: str) -> None:
            with output.open("a") as file:
                print(text, file=file)

        instance = Instance(
            home / "state",
            config_text=text,
            free_ports=True,
            on_line=lambda service, line: say(f"{service}: {line}"),
            on_happening=lambda happening: say(f"--- {happening.sentence}"),
        )
        return cls(instance, gates)

    # ------------------------------------------------------------------ life

    async def start(self, *, shut: tuple[str, ...] = ()) -> None:
        for name in GATES:
            if name not in shut:
                self.open(name)
        self._watcher = asyncio.create_task(self._watch())
        await self.instance.start()

    async def close(self) -> None:
        """End everything, whatever state the test has left it in; `end` is the orderly way."""
        await self.instance.stop(retire=False, quickly=True)
        if self._watcher is not None:
            self._watcher.cancel()
        for directory in self.machines:
            if (directory / "pid").exists():
                await asyncio.to_thread(stop, MachineDir(directory), grace=0)

    def open(self, gate: str) -> None:
        (self.gates / gate).touch()

    def shut(self, gate: str) -> None:
        (self.gates / gate).unlink()

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.05)

    def look(self) -> None:
        for directory in self.machines:
            self.names.add(directory.name)
            with suppress(OSError, ValueError, KeyError, psutil.NoSuchProcess):
                self.processes.add(psutil.Process(json.loads((directory / "pid").read_text())["pid"]))

    # ------------------------------------------------------------------ what there is

    @property
    def state(self) -> Path:
        return self.instance.state.path

    @property
    def machines(self) -> list[Path]:
        """Directories of machines."""
        return list((self.state / "machines").glob("*-*"))

    def running(self) -> list[psutil.Process]:
        """Node processes of this instance, found by what they were started with and not by any record."""
        mine = f"--config {self.state / 'machines'}/"
        return [process for process in _living() if mine in " ".join(_command(process))]

    async def operations(self, action: str | None = None) -> list[dict[str, Any]]:
        """Oldest first."""
        found = await self.instance.api.items("/api/v1/operations")
        return sorted((op for op in found if action in {None, op["action"]}), key=lambda op: op["op_id"])

    async def nodes(self) -> list[dict[str, Any]]:
        return await self.instance.api.items("/api/v1/nodes?all=1")

    async def active(self, count: int) -> list[dict[str, Any]]:
        """So many active nodes with a reported machine and nothing else, nothing open; else an empty list."""
        nodes, operations = await self.nodes(), await self.operations()
        settled = all(op["ended_at"] for op in operations)
        serving = [node for node in nodes if node["state"] == "active" and node["name"] and not node["silent"]]
        return serving if settled and len(serving) == len(nodes) == count else []

    async def fleet_of(self, count: int) -> list[dict[str, Any]]:
        return await eventually(lambda: self.active(count), f"a settled fleet of {count}")

    async def reaches(self, path: str, state: str) -> dict[str, Any]:
        """Wait until what lies at ``path`` of the API is in this state."""

        async def there() -> dict[str, Any] | None:
            found = await self.instance.api.get(path)
            return found if found["state"] == state else None

        return await eventually(there, f"{path} {state}")

    async def stored(self, bucket: str, prefix: str) -> dict[str, dict[str, Any]]:
        """The store's own records."""
        creds = self.instance.nats_identity.creds_file("admin")
        client = await bus.connect(NatsSettings(url=self.instance.urls.nats, creds_file=creds), name="test")
        try:
            entries = await (await client.bucket(bucket)).entries(prefix)
            return {entry.key.removeprefix(prefix): json.loads(entry.value) for entry in entries}
        finally:
            await client.close()

    # ------------------------------------------------------------------ in flight, and the kill

    async def held(self, action: str, gate: str) -> dict[str, Any] | None:
        """The open operation of this kind whose job waits at a gate, and nowhere else."""
        for op in await self.operations(action):
            if op["ended_at"] is None:
                job = await self.instance.api.get(f"/api/v1/jobs/{op['op_id']}")
                if job["state"] == "running" and job["progress"]["stage"].endswith(f"Gate {gate}"):
                    return op
        return None

    async def in_flight(self, action: str, gate: str) -> dict[str, Any]:
        return await eventually(lambda: self.held(action, gate), f"a {action} at gate {gate}")

    def job_processes(self) -> list[psutil.Process]:
        """Children of the fork server; each runs one playbook."""
        return [
            child for server in self._fork_servers() for child in server.children() if "zygote" in str(_command(child))
        ]

    def _fork_servers(self) -> list[psutil.Process]:
        provisioner = psutil.Process(self.instance.pids()["provisioner"])
        return [child for child in provisioner.children() if "provisioner.engine.zygote" in _command(child)]

    async def kill(self, victim: str) -> None:
        """SIGKILL a service, NATS, the fork server or its children, and wait until it is up again."""
        if victim in {"job", "fork server"}:
            victims = self.job_processes() if victim == "job" else self._fork_servers()
            assert victims, "there was something to kill"
            for process in victims:
                process.kill()
            return
        pid = self.instance.pids()[victim]
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: self.instance.pids().get(victim, pid) != pid, f"a new {victim}")

    # ------------------------------------------------------------------ the end

    async def check(self, *, creates: int, destroys: int) -> None:
        """One machine for each create that succeeded, none twice, none left of those destroyed; nothing stuck."""
        remaining = creates - destroys
        operations = await self.operations()
        assert [op["state"] for op in operations] == ["succeeded"] * (creates + destroys), operations
        nodes = {op["node_id"] for op in operations if op["action"] == "create"}
        assert len(nodes) == creates
        gone = {op["node_id"] for op in operations if op["action"] == "destroy"}
        assert len(gone) == destroys
        assert gone <= nodes
        assert {f"default-{node_id[:8]}" for node_id in nodes} == self.names, "machines that ever were"
        assert len(self.processes) == creates, "node processes that ever were: one for each operation"
        expected = {f"default-{node_id[:8]}" for node_id in nodes - gone}
        assert {path.name for path in self.machines} == expected
        assert len(self.running()) == remaining
        assert set(await self.stored("jobs", "machine.")) == nodes - gone
        assert set(await self.stored(subjects.STATE_BUCKET, "node.")) == nodes - gone
        jobs = await self.stored("jobs", "job.")
        assert set(jobs) == {op["op_id"] for op in operations}
        assert {job["state"] for job in jobs.values()} == {"succeeded"}
        assert marked(jobs) == [], "processes of jobs"
        assert list((self.state / "jobs").glob("*/work-*")) == [], "private directories of jobs"

    async def end(self) -> None:
        """An orderly stop leaves nothing."""
        assert await self.instance.retire() == []
        jobs = await self.stored("jobs", "job.")
        assert await self.stored("jobs", "machine.") == {}
        services = [psutil.Process(pid) for pid in self.instance.pids().values()]
        await self.instance.stop(retire=False)
        assert self.machines == []
        assert self.running() == []
        assert marked(jobs) == []
        assert not any(process.is_running() for process in services)


def marked(jobs: Any) -> list[psutil.Process]:
    """Processes that a job has started and left behind."""
    found = []
    for process in _living():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) in jobs:
                found.append(process)
    return found


def _living() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return []
