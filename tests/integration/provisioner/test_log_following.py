"""`secbeat jobs log -f` against the provisioner's own routes: every byte once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from provisioner.engine.blueprints import Blueprints
from provisioner.engine.project import Project
from provisioner.jobs.logfile import JobLog, LogHub
from provisioner.parts import Parts
from provisioner.secrets import Secrets
from secbeat import ids, signing
from secbeat.api import listen
from secbeat.clock import SystemClock
from secbeat.paths import StateDir
from secbeat.settings import BlueprintSettings, Settings
from secbeat.testing import MemoryBucket, MemoryMessaging, MemoryQueue
from secbeat.wire.jobs import JobError, JobRecord

PROJECT = Path(__file__).parent / "project"
CUTS = 20
LINES = 200_000


class Service:
    """The routes on a socket; jobs and their logs are written by the test."""

    def __init__(self, root):
        chosen = Settings(blueprints={"default": BlueprintSettings()})
        self.hub = LogHub(root / "jobs")
        self.parts = Parts(
            settings=chosen, state=StateDir(root), secrets=Secrets((signing.new_secret(),)), hub=self.hub,
            blueprints=Blueprints(chosen.blueprints, Project(PROJECT), root / "revisions"), engine=None, joins=None,
            bucket=MemoryBucket(), queue=MemoryQueue(), messaging=MemoryMessaging(), clock=SystemClock(),
        )  # fmt: skip
        self.op_id = ids.new_op_id()
        self.listener = None
        self.logs = []

    @property
    def port(self):
        return int(self.listener.url.rpartition(":")[2])

    async def start(self, address="127.0.0.1:0"):
        self.listener = await listen(self.parts.application(lambda _token: None, dict), address)

    async def put(self, state, **changes):
        now = SystemClock().now()
        record = JobRecord(
            op_id=self.op_id, cluster_id=ids.new_cluster_id(), action="create", pool="default",
            node_id=ids.new_node_id(), state=state, created_at=now, deadline=now,
        )  # fmt: skip
        known = await self.parts.store.get(self.op_id)
        if known is None:
            await self.parts.store.create(record)
        else:
            await self.parts.store.change(self.op_id, lambda one: one.model_copy(update={"state": state, **changes}))

    def log(self):
        found = JobLog(self.hub, self.op_id)
        found.open()
        self.logs.append(found)
        return found

    @property
    def stored(self):
        return self.hub.path(self.op_id).read_bytes()


class Proxy:
    """Passes bytes on and cuts a connection, with a reset, when so many have passed."""

    def __init__(self, port, cuts, least):
        self.target, self.cuts, self.least, self.done = port, cuts, least, 0
        self.sizes = itertools.cycle([least, least // 3, 2 * least, 1_000, 0])
        self.server, self.tasks = None, set()

    async def start(self):
        self.server = await asyncio.start_server(self.pass_on, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def pass_on(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        head = await reader.readuntil(b"\r\n\r\n")
        back.write(head)
        limit = next(self.sizes) if b"/log" in head and self.done < self.cuts else None
        passed = 0
        try:
            while chunk := await there.read(16_384):
                chunk = chunk if limit is None else chunk[: max(0, limit - passed)]
                writer.write(chunk)
                await writer.drain()
                passed += len(chunk)
                if limit is not None and passed >= limit:
                    self.done += 1
                    writer.transport.abort()
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            back.transport.abort()
            writer.close()


@pytest.fixture
async def service(tmp_path):
    found = Service(tmp_path)
    await found.start()
    yield found
    for log in found.logs:
        log.close()
    await found.listener.close()


@pytest.fixture
async def proxy(service):
    found = Proxy(service.port, CUTS, 400_000)
    found.port = await found.start()
    yield found
    found.server.close()
    for task in found.tasks:
        task.cancel()
    await asyncio.gather(*found.tasks, return_exceptions=True)


async def follow(port, op_id, *words, stdout=asyncio.subprocess.PIPE):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SECBEAT")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "secbeat", "jobs", "log", op_id, "-f", "--provisioner-url", f"http://127.0.0.1:{port}",
        *words, stdout=stdout, stderr=asyncio.subprocess.PIPE, env=environment | {"SECBEAT_STATE": "/nonexistent"},
    )  # fmt: skip


async def write_much(log):
    for number in range(LINES):
        log.line(f"line {number} of a job that says much")
        if number == LINES // 2:
            log.line("x" * 2_000_000)
        if number % 500 == 0:
            await asyncio.sleep(0)


async def test_every_byte_arrives_once_over_twenty_lost_connections(service, proxy, tmp_path):
    await service.put("running")
    received = tmp_path / "received"
    with received.open("wb") as file:
        process = await follow(proxy.port, service.op_id, stdout=file)
        log = service.log()
        await write_much(log)
        async with asyncio.timeout(60):
            while proxy.done < CUTS:
                log.line("and more")
                await asyncio.sleep(0.02)
        log.line("the last words")
        log.close()
        await service.put("succeeded")
        ended = time.monotonic()
        _, said = await process.communicate()
    assert proxy.done == CUTS
    assert received.read_bytes() == service.stored
    assert process.returncode == 0, said
    assert time.monotonic() - ended < 10


async def test_the_end_of_a_job_is_known_within_two_seconds(service):
    await service.put("running")
    process = await follow(service.port, service.op_id)
    log = service.log()
    log.line("begun")
    assert await process.stdout.readline() == b"begun\n"
    log.close()
    error = JobError(code="PLAYBOOK_FAILED", message="the disk is full")
    await service.put("failed", error=error)
    began = time.monotonic()
    said = await process.stderr.read()
    assert await process.wait() == 1
    assert time.monotonic() - began < 2
    assert b"error[WORK_FAILED]" in said
    assert b"PLAYBOOK_FAILED: the disk is full" in said


async def test_queue_second_attempt_and_cancel_are_one_log_to_the_end(service):
    await service.put("queued")
    process = await follow(service.port, service.op_id, "-o", "json")
    assert b"is queued" in await process.stderr.readline()
    for attempt in (1, 2):
        await service.put("running", attempt=attempt)
        log = service.log()
        log.line(f"attempt {attempt}")
        log.close()
        assert json.loads(await process.stdout.readline()) == {"line": attempt, "text": f"attempt {attempt}"}
        if attempt == 1:
            await service.put("queued")
    await service.put("cancelled", error=JobError(code="JOB_CANCELLED", message="it was cancelled"))
    assert await process.stdout.read() == b""
    assert await process.wait() == 1
    assert b"JOB_CANCELLED" in await process.stderr.read()


async def test_ctrl_c_is_130_and_says_nothing(service):
    await service.put("running")
    service.log().line("begun")
    process = await follow(service.port, service.op_id)
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = await process.communicate()
    assert (process.returncode, said) == (130, b"")


async def test_a_service_that_starts_again_meanwhile_is_waited_for(service):
    await service.put("running")
    log, address = service.log(), f"127.0.0.1:{service.port}"
    log.line("one")
    process = await follow(service.port, service.op_id)
    assert await process.stdout.readline() == b"one\n"
    await service.listener.close()
    log.line("two")
    assert b"trying again" in await process.stderr.readline()
    await service.start(address)
    assert await process.stdout.readline() == b"two\n"
    await service.put("succeeded")
    assert await process.wait() == 0


async def test_readers_that_never_read_cost_little_memory(service):
    await service.put("running")
    log = service.log()
    for _ in range(60):
        log.line("x" * 1_000_000)
    request = f"GET /jobs/{service.op_id}/log?follow=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lazy = []
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=1)
        reader._transport.pause_reading()
        writer.write(request)
        lazy.append(writer)
    async with asyncio.timeout(10):
        await asyncio.sleep(1.0)  # time for a server that does not wait for its readers to load 1.2 GB
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    for writer in lazy:
        writer.transport.abort()
    assert grown < 20 * 5_000_000, f"{grown:,} bytes"
