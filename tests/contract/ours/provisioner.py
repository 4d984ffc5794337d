"""Our provisioner's HTTP service, its stores in memory, its playbooks never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from provisioner.engine.blueprints import Blueprints
from provisioner.engine.project import Project
from provisioner.jobs.logfile import LogHub
from provisioner.parts import Parts
from provisioner.secrets import Secrets
from secbeat import signing
from secbeat.api import listen
from secbeat.paths import StateDir
from secbeat.settings import BlueprintSettings, ProvisionerSettings, Settings
from secbeat.testing import FakeClock, MemoryBucket, MemoryMessaging, MemoryQueue
from secbeat.wire.jobs import JobRecord
from tests.contract import raw
from tests.contract.raw import Message


class OurProvisioner:
    """``ask`` speaks to it byte by byte."""

    @classmethod
    async def start(cls, directory: Path, **settings: Any) -> OurProvisioner:
        made = cls(directory, **settings)
        app = made.parts.application(lambda _token: None, lambda: {"nats": None})
        made._listener = await listen(app, "127.0.0.1:0", shutdown_timeout=0.1)
        return made

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.clock, self.bucket, self.messaging = FakeClock(), MemoryBucket(), MemoryMessaging()
        project = directory / "project"
        (project / "playbooks").mkdir(parents=True)
        (project / "inventories" / "local").mkdir(parents=True)
        for name in ("scale_up", "scale_down"):
            (project / "playbooks" / f"{name}.yml").write_text(f"- name: {name}\n")
        (project / "inventories" / "local" / "hosts.yml").write_text("all:\n")
        chosen = Settings(
            provisioner=ProvisionerSettings(**settings), blueprints={"default": BlueprintSettings(max_machines=5)}
        )
        self.parts = Parts(
            settings=chosen, state=StateDir(directory / "state"), secrets=Secrets((signing.new_secret(),)),
            hub=LogHub(directory / "jobs"),
            blueprints=Blueprints(chosen.blueprints, Project(project), directory / "revisions"),
            engine=None, joins=None, bucket=self.bucket, queue=MemoryQueue(clock=self.clock),
            messaging=self.messaging, clock=self.clock,
        )  # fmt: skip

    @property
    def port(self) -> int:
        return self._listener.port

    async def close(self) -> None:
        await self._listener.close()

    # -------------------------------------------------------------- what a test does

    async def ask(self, sent: bytes | Message) -> Message:
        return await raw.ask(self.port, sent)

    async def provision(self, body: Any) -> Message:
        """An unsigned webhook, as the original sends it."""
        return await self.ask(raw.original("POST", "/provision", body))

    async def jobs(self) -> list[JobRecord]:
        """The jobs, oldest first."""
        return sorted(await self.parts.store.jobs() or [], key=lambda job: job.op_id)

    async def finish(self, job: JobRecord, state: str = "succeeded") -> None:
        """The job ends."""
        await self.parts.store.change(job.op_id, lambda one: one.model_copy(update={"state": state}))
