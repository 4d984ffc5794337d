"""A provisioner in memory: every part but the engine's processes, on virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from provisioner.engine.base import Outcome
from provisioner.engine.blueprints import Blueprints
from provisioner.engine.project import Project
from provisioner.jobs.attempts import Attempts
from provisioner.jobs.execute import Executor, Site
from provisioner.jobs.logfile import LogHub
from provisioner.jobs.store import JobStore
from provisioner.jobs.upkeep import Upkeep
from provisioner.jobs.worker import Worker
from provisioner.limits import Limits
from provisioner.redact import Redactor
from provisioner.webhook.epochs import Epochs
from provisioner.webhook.intake import Intake
from provisioner.webhook.unsigned import UnsignedIntake
from secbeat import ids
from secbeat.settings import BlueprintSettings, ProvisionerSettings
from secbeat.testing import FakeClock, MemoryBucket, MemoryMessaging, MemoryQueue, settle
from secbeat.wire.jobs import JobRecord, ListedMachine, MachineList
from secbeat.wire.registration import JoinSecret
from secbeat.wire.webhook import WebhookBody


class Engine:
    """An Engine that a test steers: outcomes in order, the last one for ever; ``gate`` holds runs back."""

    def __init__(self):
        self.outcomes: list[Any] = []
        self.jobs = []
        self.running = 0
        self.most_running = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, job, observer, cancelled):
        self.jobs.append(job)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            observer.stage("Working", 0)
            observer.output("working")
            gate, stop = asyncio.ensure_future(self.gate.wait()), asyncio.ensure_future(cancelled.wait())
            await asyncio.wait({gate, stop}, return_when=asyncio.FIRST_COMPLETED)
            gate.cancel()
            stop.cancel()
            if cancelled.is_set():
                return error("JOB_CANCELLED")
        finally:
            self.running -= 1
        chosen = self.outcomes.pop(0) if len(self.outcomes) > 1 else (self.outcomes or [None])[0]
        return chosen if chosen is not None else Outcome(result=good_result(job))


def good_result(job):
    if job.action == "destroy":
        return {"id": "i", "name": job.request["name"], "gone": True}
    return {"id": "i", "name": job.request["name"], "address": "127.0.9.9"}


def error(code, message="broke", **changes):
    from secbeat.wire.jobs import JobError

    return Outcome(error=JobError(code=code, message=message, **changes))


class Joins:
    def __init__(self, clock):
        self.clock = clock
        self.failures = []
        self.asked = []
        self.nodes = {}

    async def fetch(self, op_id):
        self.asked.append(op_id)
        if self.failures:
            raise self.failures.pop(0)
        return JoinSecret(
            cluster_id=ids.new_cluster_id(), node_id=self.nodes.get(op_id, ids.new_node_id()), op_id=op_id,
            pool="default", secret="join-secret-of-this-job", expires_at=self.clock.now() + timedelta(minutes=15),
        )  # fmt: skip


class Lister:
    def __init__(self, clock):
        self.clock, self.machines, self.complete = clock, [], True

    async def listed(self, target):
        return MachineList(
            target=target, listed_at=self.clock.now(), complete=self.complete, machines=list(self.machines)
        )

    def shows(self, node_id):
        self.machines = [ListedMachine(node_id=node_id, pool="default", name="n", running=True)]


class World:
    """All parts, wired as the composition root does it."""

    def __init__(self, root, *, blueprints=None, **settings):
        self.root = root
        self.clock = FakeClock()
        self.settings = ProvisionerSettings(**settings)
        self.bucket, self.messaging = MemoryBucket(), MemoryMessaging()
        self.queue = MemoryQueue(clock=self.clock)
        self.engine, self.joins, self.lister = Engine(), Joins(self.clock), Lister(self.clock)
        self.blueprint_settings = blueprints or {"default": BlueprintSettings()}
        self.blueprints = Blueprints(self.blueprint_settings, Project(root / "project"), root / "revisions")
        self.store = JobStore(self.bucket, self.messaging, self.clock)
        self.limits = Limits(self.settings, self.clock)
        self.hub = LogHub(root / "jobs")
        self.cluster_id = ids.new_cluster_id()
        self.swept = []
        self.ended = []
        self.tasks = []
        self.intake = Intake(
            store=self.store, queue=self.queue, limits=self.limits, blueprints=self.blueprints,
            epochs=Epochs(self.bucket), clock=self.clock,
        )  # fmt: skip
        self.unsigned = UnsignedIntake(
            intake=self.intake, store=self.store, bucket=self.bucket, pool="default", blueprint="default",
            clock=self.clock,
        )  # fmt: skip
        self.worker = self.make_worker()

    def make_worker(self, owner="test-host:1:1"):
        executor = Executor(
            store=self.store, engine=self.engine, blueprints=self.blueprints, joins=self.joins, lister=self.lister,
            limits=self.limits, hub=self.hub, redactor=Redactor(), clock=self.clock, sweep=self.sweep,
            site=Site(self.root / "machines", self.root / "jobs", "http://127.0.0.1:3030"),
        )  # fmt: skip

        async def on_ended(job):
            self.ended.append(job)

        self.attempts = Attempts(
            store=self.store, executor=executor, limits=self.limits, hub=self.hub, clock=self.clock, owner=owner,
            on_ended=on_ended,
        )  # fmt: skip
        return Worker(
            queue=self.queue, store=self.store, attempts=self.attempts, settings=self.settings, clock=self.clock,
            parallel={name: one.max_parallel_jobs for name, one in self.blueprint_settings.items()},
        )  # fmt: skip

    def sweep(self, op_id):
        self.swept.append(op_id)
        return 0

    def upkeep(self, worker=None, retention=timedelta(days=30)):
        return Upkeep(
            store=self.store, queue=self.queue, worker=worker or self.worker, limits=self.limits, hub=self.hub,
            blueprints=self.blueprints, clock=self.clock, retention=retention,
        )  # fmt: skip

    def start(self, worker=None):
        task = asyncio.create_task((worker or self.worker).run())
        self.tasks.append(task)
        return task

    def body(self, *, action="create", reason="MANUAL", node_id=None, seconds=600, **changes):
        now = self.clock.now()
        operation = {
            "cluster_id": self.cluster_id, "op_id": ids.new_op_id(), "action": action, "pool": "default",
            "node_id": node_id or ids.new_node_id(), "epoch": 1, "issued_at": now,
            "deadline": now + timedelta(seconds=seconds),
        }  # fmt: skip
        return WebhookBody(reason=reason, timestamp=now, operation=operation | changes)

    async def send(self, body=None, **changes):
        body = body or self.body(**changes)
        return await self.intake.operation(body, webhook_id=body.operation.op_id, action=body.operation.action)

    async def job(self, op_id) -> JobRecord:
        found = await self.store.get(op_id)
        assert found is not None
        return found

    async def until(self, check, *, seconds=60):
        """Let virtual time pass, and give threads real time, until ``check`` holds."""
        for _ in range(seconds * 4):
            for _ in range(40):
                await settle()
                if await check() if asyncio.iscoroutinefunction(check) else check():
                    return
                await asyncio.sleep(0.001)
                if not self.in_threads():
                    break
            await self.clock.advance(0.25)
        raise AssertionError(f"not within {seconds} virtual seconds")

    def in_threads(self):
        # Work in a thread (files, sweeps) takes real time, during which virtual time should stand still.
        return any("to_thread" in str(task.get_stack()) for task in asyncio.all_tasks())

    async def finish(self, op_id, *, seconds=60):
        async def check():
            return (await self.job(op_id)).state in {"succeeded", "failed", "cancelled"}

        await self.until(check, seconds=seconds)
        return await self.job(op_id)

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    (root / "playbooks").mkdir(parents=True)
    (root / "inventories" / "local").mkdir(parents=True)
    for name in ("scale_up", "scale_down"):
        (root / "playbooks" / f"{name}.yml").write_text(f"- name: {name}\n")
    (root / "inventories" / "local" / "hosts.yml").write_text("all:\n")
    return root


@pytest.fixture
async def make_world(tmp_path, project):
    made = []

    def make(**settings):
        made.append(World(tmp_path, **settings))
        return made[-1]

    yield make
    for world in made:
        await world.close()


@pytest.fixture
async def world(make_world):
    return make_world()


@pytest.fixture
def failing():
    """Makes an Outcome with an error."""
    return error
