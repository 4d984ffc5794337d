"""No attempt at a job begins before everything of an earlier one is gone, however the earlier one lost its service."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from provisioner.engine import environment, marks, presence
from provisioner.engine.ansible import AnsibleEngine
from provisioner.engine.base import EngineJob
from provisioner.engine.blueprints import Blueprints
from provisioner.engine.forkserver import ForkServer
from provisioner.engine.project import Project
from provisioner.redact import Redactor
from secbeat import ids
from secbeat.settings import BlueprintSettings

PROJECT = Path(__file__).parent / "project"


class Quiet:
    """An Observer that only notes when the slow task is reached."""

    def __init__(self):
        self.reached = asyncio.Event()
        self.text = []

    def stage(self, name, _tasks_done):
        if name == "Wait for a long time":
            self.reached.set()

    def output(self, text):
        self.text.append(text)

    def event(self, event):
        pass


@pytest.fixture
async def start(tmp_path):
    shutil.copytree(PROJECT, tmp_path / "project")
    servers = []

    async def started():
        server = ForkServer(environment.base(), tmp_path / "jobs.lock")
        servers.append(server)
        await server.start()
        return server

    yield started
    for server in servers:
        await server.close()


def make_job(root, reason="OK", attempt=1, op_id=None):
    op_id = op_id or ids.new_op_id()
    blueprints = Blueprints({"default": BlueprintSettings()}, Project(root / "project"), root / "revisions")
    return EngineJob(
        op_id=op_id,
        action="create",
        blueprint=blueprints.current("default"),
        request={"op_id": op_id, "name": "default-12345678", "node_id": "n", "reason": reason},
        site={"machines_dir": str(root / "machines"), "canary": str(root / "pwned")},
        work_dir=root / op_id / f"work-{attempt}",
        timeout_seconds=60.0,
        redactor=Redactor(),
    )


def servers_of(root):
    return marks.servers(str(root / "jobs.lock"))


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.2, 0.5, None])
async def test_a_job_lost_with_its_fork_server_ends_when_nothing_of_it_runs(start, tmp_path, moment):
    server = await start()
    job, seen = make_job(tmp_path, "SLOW"), Quiet()
    old = set(servers_of(tmp_path))
    running = asyncio.create_task(AnsibleEngine(server).run(job, seen, asyncio.Event()))
    if moment is None:
        async with asyncio.timeout(30):
            await seen.reached.wait()
    else:
        await asyncio.sleep(moment)  # any moment of a start is a fair one: forked, furnished, about to play
    old |= set(servers_of(tmp_path))
    os.kill(server.pid, signal.SIGKILL)
    outcome = await running
    assert outcome.error.code == "JOB_CRASHED"
    assert marks.marked(job.op_id) == []
    assert [one for one in old if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
    assert (await AnsibleEngine(server).run(make_job(tmp_path), Quiet(), asyncio.Event())).error is None


_HOLDER = """
import fcntl, os, signal, sys, time
held = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(held, fcntl.LOCK_EX)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def old_server(root, seconds):
    lock = root / "jobs.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(lock), str(seconds)],
        env={**environment.base(), presence.MARK: str(lock)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process.stdout as pipe:
        assert pipe.readline() == b"held\n"
    return process


async def test_a_start_waits_for_what_a_killed_service_left(start, tmp_path):
    old = old_server(tmp_path, 1.5)
    began = time.monotonic()
    await start()
    assert old.poll() is not None or not psutil.pid_exists(old.pid) or psutil.Process(old.pid).status() == "zombie"
    assert time.monotonic() - began < 10
    old.wait()


async def test_what_does_not_end_is_killed(start, tmp_path, monkeypatch):
    monkeypatch.setattr("provisioner.engine.forkserver._PATIENCE_SECONDS", 0.3)
    old = old_server(tmp_path, 300)
    await start()
    with suppress(subprocess.TimeoutExpired):
        old.wait(10)
    assert old.returncode == -signal.SIGKILL


async def test_an_ended_server_lets_the_next_one_start_at_once(start):
    first = await start()
    await first.close()
    began = time.monotonic()
    await start()
    assert time.monotonic() - began < 5


async def test_a_killed_job_leaves_nothing_outside_its_private_directory(start, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("TMPDIR", str(shared))
    server = await start()
    job, seen, cancelled = make_job(tmp_path, "SLOW"), Quiet(), asyncio.Event()
    running = asyncio.create_task(AnsibleEngine(server).run(job, seen, cancelled))
    async with asyncio.timeout(30):
        await seen.reached.wait()
        while not list((job.work_dir / "tmp").iterdir()):  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.05)
    (leader,) = (one for one in psutil.Process(server.pid).children() if one.children())
    leader.kill()
    assert (await running).error.code == "JOB_CRASHED"
    assert not job.work_dir.exists()
    assert list(shared.iterdir()) == []


async def test_a_user_without_a_home_can_run_local_jobs(start, tmp_path, monkeypatch):
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    monkeypatch.setenv("HOME", str(nowhere / "home"))  # cannot be made, not even by root
    server = await start()
    home = environment.substitute_home(tmp_path / "home")
    assert home is not None
    seen = Quiet()
    outcome = await AnsibleEngine(server, home=home).run(make_job(tmp_path), seen, asyncio.Event())
    assert outcome.error is None, "\n".join(seen.text)
    assert (home / ".ansible" / "tmp").is_dir(), "its files were put where they can be"
