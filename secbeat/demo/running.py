"""The demo's composition root: a private instance, an origin, the load, the story, and the look round afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from secbeat import bus
from secbeat.demo import observing
from secbeat.demo.loading import Load
from secbeat.demo.reporting import DemoFailed, Report
from secbeat.demo.story import CPU_ALLOWANCE, Story
from secbeat.errors import ConfigError, SecbeatError
from secbeat.settings import NatsSettings, NodeSettings
from secbeat.up import Happening, Instance
from secbeat.up.children import Child
from secbeat.up.ports import Reservations

POOL = "demo"
_ENDED_SECONDS = 10.0
_ORIGIN_SECONDS = 20.0
_API_TIMEOUT = aiohttp.ClientTimeout(total=20)
_INTERRUPTED = 130

# A check every second instead of every minute, so that the demo takes one minute instead of fifteen. The thresholds
# and the numbers of checks are the defaults.
_CONFIG = """\
[pools.{pool}]
min = 1
max = 4
blueprint = "demo"
scaling_check_interval_seconds = 1
scale_down_cooldown_seconds = 3
warmup_seconds = 3
drain_deadline_seconds = 30

[blueprints.demo]
max_machines = 6

[blueprints.demo.variables]
secbeat_node_backend = "{origin}"
secbeat_node_cpu_allowance = {allowance}
secbeat_node_propagation_seconds = 3

[orchestrator]
heartbeat_interval_seconds = 1
"""


def run(*, target: str, engine: str, as_json: bool) -> int:
    """Run the demo; the exit code: 0 all is well, 1 a check did not hold, 130 interrupted.

    The state directory is kept only after a failure. Whatever happens, no process stays.

    Raises:
        ConfigError: a target or an engine that this version cannot show (USAGE), or a broken set-up.
    """
    if target != "local" or engine != "ansible":
        raise ConfigError("USAGE", why=f"this version shows target local by ansible, not {target} by {engine}")
    report = Report(as_json=as_json)
    state = Path(tempfile.mkdtemp(prefix="secbeat-demo-"))
    interrupted = False
    try:
        asyncio.run(_stoppable(_demo(report, state)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        interrupted = True
        report.problems.append("interrupted")
    finally:
        _end_nodes(report, state / "machines")
    if report.ok or interrupted:
        shutil.rmtree(state)
    else:
        report.say(f"logs and state are kept in {state}")
    code = report.finish()
    return _INTERRUPTED if interrupted else code


async def _stoppable(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does: nodes drain first. A second one cuts that short."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    await task


def _end_nodes(report: Report, machines: Path) -> None:
    """Nodes are no children of ours: those that an orderly end has not taken are ended here, by their pid files."""
    from provisioner.local.processes import read_pid_file, send, wait_for_end

    for directory in machines.glob("*"):
        node = read_pid_file(directory / "pid")
        if node is not None and node.running:
            report.say(f"ending {directory.name}, process {node.pid}")
            send(node, signal.SIGKILL)
            wait_for_end(node, _ENDED_SECONDS)


async def _demo(report: Report, state: Path) -> None:
    began = time.monotonic()
    report.say(f"state: {state} (removed at the end if all is well)")
    report.say(f"proxy driver of the nodes: {NodeSettings().driver}")
    async with _origin(state) as origin:
        config = _CONFIG.format(pool=POOL, origin=origin, allowance=CPU_ALLOWANCE)
        instance = Instance(
            state, config_text=config, free_ports=True, on_happening=lambda event: _tell_trouble(report, event)
        )
        try:
            await instance.start()
            report.step("NATS, orchestrator, provisioner up", began, instance.urls.orchestrator)
            await _acts(report, instance, state)
        except DemoFailed as failure:
            report.problems.append(str(failure))
        except SecbeatError as failure:
            report.problems.append(f"{failure.code}: {failure.why}")
        finally:
            try:
                report.left_behind += [f"node {name}" for name in await instance.stop()]
            finally:
                await instance.stop(retire=False, quickly=True)


def _tell_trouble(report: Report, event: Happening) -> None:
    if event.kind != "service.ready":
        report.say(f"      {event.sentence}")


async def _acts(report: Report, instance: Instance, state: Path) -> None:
    """The story, then the end: retire, look into the store, stop, look round."""
    heartbeats = observing.Heartbeats()
    processes = observing.Processes(state / "machines")
    services = {name: psutil.Process(pid) for name, pid in instance.pids().items()}
    url = instance.urls.orchestrator
    credentials = instance.nats_identity
    if credentials is None:
        raise DemoFailed("the instance has no NATS identity of its own")
    nats = await bus.connect(
        NatsSettings(url=instance.urls.nats, creds_file=credentials.creds_file("admin")), name="demo"
    )
    try:
        await nats.messaging.subscribe("secbeat.hb.*", heartbeats.on_message)
        load = await Load.start(url)
        services["load"] = psutil.Process(load.pid)
        try:
            headers = {"Authorization": f"Bearer {instance.tokens['admin']}"}
            async with aiohttp.ClientSession(headers=headers, timeout=_API_TIMEOUT) as session:
                story = Story(
                    report=report,
                    api=observing.Api(session, url),
                    processes=processes,
                    heartbeats=heartbeats,
                    load=load,
                    pool=POOL,
                )
                await story.first_node()
                await story.calibrate()
                await story.saturate()
                await story.grow()
                await story.shrink()
        finally:
            await _end_load(report, load)
        began = time.monotonic()
        left = await instance.retire()
        report.left_behind += [f"node {name}" for name in left]
        report.left_behind += await observing.leftovers(await nats.bucket(observing.STATE_BUCKET))
        report.step("last node drained, store empty", began)
    finally:
        await nats.close()
    began = time.monotonic()
    await instance.stop(retire=False)
    report.left_behind += await observing.survivors({**services, **processes.known}, _ENDED_SECONDS)
    report.left_behind += [f"directory {name}" for name in processes.directories()]
    report.step("services stopped, nothing left", began)


async def _end_load(report: Report, load: Load) -> None:
    try:
        figures = await load.stop()
    except DemoFailed as failure:
        report.problems.append(str(failure))
        figures = load.latest
    report.requests = figures["sent"]
    # A request that could not even be sent, because no node was in rotation, failed for its client as well.
    report.failed_requests = figures["failed"] + figures["unsent"]
    report.problems += [f"request failed: {sentence}" for sentence in figures["failures"][:5]]
    if figures["unsent"]:
        report.problems.append(f"{figures['unsent']} requests found no node in rotation")


@asynccontextmanager
async def _origin(state: Path) -> AsyncIterator[str]:
    """The test origin in a process of its own; its address."""
    reservations = Reservations()
    port = reservations.free("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "secbeat", "origin", "--listen", f"127.0.0.1:{port}")
    with (state / "origin.log").open("w") as log:
        origin = Child("origin", command, os.environ, lambda line: print(line, file=log, flush=True))
        try:
            await origin.start()
            await _answering(url, origin)
            yield url
        finally:
            await origin.stop(_ENDED_SECONDS)
            reservations.release()


async def _answering(url: str, origin: Child) -> None:
    deadline = time.monotonic() + _ORIGIN_SECONDS
    async with aiohttp.ClientSession() as session:
        while origin.pid is not None and time.monotonic() < deadline:
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    raise SecbeatError("SERVICE_NOT_READY", why=f"the test origin at {url} does not answer")
