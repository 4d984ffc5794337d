"""The provisioner, from the webhook's first byte: to the answer, the start of ``ansible-playbook``, the job's end.

The service, its NATS server and what it starts are real processes; the orchestrator is this one and only gives join
secrets. The start of ``ansible-playbook`` is seen by inotify: the kernel opens the program's file when it is executed.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web

from bench.harness import Row, median, percentile, report
from provisioner.engine import environment
from provisioner.local.directory import MachineDir
from provisioner.local.teardown import stop
from secbeat import auth, bus, ids, signing, subjects
from secbeat.bus.server import NatsServer
from secbeat.settings import NatsSettings

_ROOT = Path(__file__).parents[1]
_PROGRAM = Path(sys.executable).parent / "ansible-playbook"
_ANSWERS, _EXECS, _ROUNDS, _TRIVIAL_ROUNDS, _MANY = 400, 100, 9, 11, 10
_DEADLINE_SECONDS = 240.0
_QUIET_SECONDS, _QUIET_PERCENT, _QUIET_LOOKS = 0.15, 15.0, 40
_CLUSTER = ids.new_cluster_id()
_PLAYBOOKS = {
    "trivial": "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.debug: {msg: x}\n",
    "endless": "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.command: sleep 999\n",
}
# What our provisioner asks of a playbook, and a bare run does not need.
_REPORT = """    - ansible.builtin.set_stats:
        per_host: false
        data: {secbeat_result: {id: x, name: "{{ secbeat_request.name | default('x') }}", address: 127.0.9.9}}
"""
_CONFIG = """
[provisioner]
max_machines = 100000
max_creations_per_minute = 100000
max_concurrent_jobs = {concurrent}
[blueprints.default]
max_machines = 100000
[blueprints.trivial]
create_playbook = "trivial"
max_machines = 100000
[blueprints.endless]
create_playbook = "endless"
max_machines = 100000
"""


class ExecWatch:
    """Tells when the program file is opened for the first time after `arm`."""

    _IN_OPEN = 0x20

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, bytes(path), self._IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        self._opened: asyncio.Future[float] | None = None
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def arm(self) -> asyncio.Future[float]:
        """A future of the moment (perf_counter) of the next open."""
        with suppress(BlockingIOError):
            while os.read(self._fd, 65536):
                pass
        self._opened = asyncio.get_running_loop().create_future()
        return self._opened

    def _read(self) -> None:
        now = time.perf_counter()
        with suppress(BlockingIOError):
            data = os.read(self._fd, 65536)
            assert struct.unpack_from("iI", data)[1] & self._IN_OPEN
            if self._opened is not None and not self._opened.done():
                self._opened.set_result(now)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


class Site:
    """A running service with a client, and bare ansible-playbook on the same project for comparison."""

    def __init__(self, state: Path, project: Path, url: str, secret: str, session: aiohttp.ClientSession) -> None:
        self.state, self.project, self.url, self._secret, self._session = state, project, url, secret, session
        self.nodes: dict[str, str] = {}
        self._ends: dict[str, asyncio.Future[str]] = {}

    def on_hint(self, _subject: str, payload: bytes) -> None:
        """A job's record has changed."""
        hint = json.loads(payload)
        end = self._ends.get(hint["op_id"])
        if end is not None and hint["state"] in {"succeeded", "failed", "cancelled"} and not end.done():
            end.set_result(hint["state"])

    def request(self, blueprint: str = "default") -> tuple[str, bytes, dict[str, str]]:
        """A signed create: op_id, body, headers."""
        now = datetime.now(UTC)
        operation = {
            "v": 1, "cluster_id": _CLUSTER, "op_id": ids.new_op_id(), "action": "create", "pool": "default",
            "node_id": ids.new_node_id(), "epoch": 1, "issued_at": now.isoformat(), "blueprint": blueprint,
            "deadline": (now + timedelta(minutes=10)).isoformat(),
        }  # fmt: skip
        op_id = str(operation["op_id"])
        self.nodes[op_id] = str(operation["node_id"])
        body = json.dumps({"reason": "MANUAL", "timestamp": now.isoformat(), "operation": operation}).encode()
        headers = signing.headers(self._secret, msg_id=op_id, timestamp=int(time.time()), body=body)
        self._ends[op_id] = asyncio.get_running_loop().create_future()
        return op_id, body, headers | {"Content-Type": "application/json"}

    async def accepted(self, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """Send; the answer, which is 202."""
        async with self._session.post(f"{self.url}/provision", data=body, headers=headers) as answer:
            content: dict[str, Any] = await answer.json()
            assert answer.status == 202, content
            return content

    async def ended(self, op_id: str) -> None:
        """Until the job has succeeded."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            state = await self._ends.setdefault(op_id, asyncio.get_running_loop().create_future())
        assert state == "succeeded", (self.state / "jobs" / op_id / "log").read_text()

    async def job(self, blueprint: str) -> float:
        """Seconds from sending a signed create to its job's end."""
        op_id, body, headers = self.request(blueprint)
        start = time.perf_counter()
        await self.accepted(body, headers)
        await self.ended(op_id)
        return time.perf_counter() - start

    async def real_job(self) -> float:
        """Seconds from sending a replacement in the original's form to its job's end.

        Such a node starts without a join secret, exactly as one does that a person makes with bare ansible-playbook.
        """
        body = {"reason": "UNEXPECTED_NODE_FAILURE", "timestamp": datetime.now(UTC).isoformat()}
        raw = json.dumps(body | {"failed_node_id": ids.new_node_id(), "failed_node_ip": "192.0.2.1"}).encode()
        start = time.perf_counter()
        answer = await self.accepted(raw, {"Content-Type": "application/json"})
        await self.ended(answer["op_id"])
        return time.perf_counter() - start

    async def bare(self, playbook: str) -> float:
        """Seconds that ansible-playbook alone takes, by hand, for the same."""
        start = time.perf_counter()
        process = await self.spawn(playbook)
        assert await process.wait() == 0, playbook
        return time.perf_counter() - start

    async def spawn(self, playbook: str) -> asyncio.subprocess.Process:
        """Start bare ansible-playbook."""
        variables = {"pool": "default", "node_id": ids.new_node_id()}
        variables |= {"secbeat_node_machines_dir": str(self.state / "machines")}
        words = [str(_PROGRAM), str(self.project / "playbooks" / f"{playbook}.yml")]
        words += ["-i", str(self.project / "inventories" / "local"), "-e", json.dumps(variables)]
        return await asyncio.create_subprocess_exec(
            *words, env=environment.base(), cwd=self.project, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def clear(self) -> None:
        """End the nodes that there are."""
        for path in (self.state / "machines").glob("*-*"):
            with suppress(Exception):  # a directory without a node, of the trivial playbook
                stop(MachineDir(path), grace=0)
            shutil.rmtree(path, ignore_errors=True)


def make_project(root: Path) -> Path:
    """Our own project with two more playbooks."""
    project = root / "project"
    for name in ("playbooks", "inventories"):
        shutil.copytree(_ROOT / name, project / name)
    shutil.copy(_ROOT / "ansible.cfg", project)
    for name, text in _PLAYBOOKS.items():
        (project / "playbooks" / f"{name}.yml").write_text(text + _REPORT)
    return project


@asynccontextmanager
async def site(root: Path, *, concurrent: int = 10) -> AsyncIterator[Site]:
    """A service on a private state directory."""
    state, project = root / f"state-{concurrent}", root / "project"
    secret = signing.new_secret()
    auth.write_secret(state / "secrets" / "webhook.secret", secret)
    auth.write_secret(state / "secrets" / "service.token", "bench")
    (state / "secbeat.toml").write_text(_CONFIG.format(concurrent=concurrent))
    nats = NatsServer(state / "nats", port=0, open_access=True)
    await nats.start()
    client = await bus.connect(NatsSettings(url=nats.url), name="bench")
    async with aiohttp.ClientSession() as session:
        made = Site(state, project, "", secret, session)
        await client.messaging.subscribe(subjects.JOB_HINTS, made.on_hint)
        orchestrator, joins = await _joins(made)
        variables = {
            "SECBEAT_PROVISIONER__LISTEN_ADDR": "127.0.0.1:0",
            "SECBEAT_PROVISIONER__STATE_DIR": str(state),
            "SECBEAT_PROVISIONER__PROJECT_DIR": str(project),
            "SECBEAT_PROVISIONER__ORCHESTRATOR_URL": joins,
            "SECBEAT_NATS__URL": nats.url,
        }
        with (state / "service.log").open("wb") as log:
            service = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "provisioner", "--config", str(state / "secbeat.toml"),
                env=environment.base() | variables, stdout=log, stderr=log, cwd=state,
            )  # fmt: skip
        try:
            made.url = await _listening(state / "service.log")
            yield made
        finally:
            if service.returncode is None:
                service.terminate()
                await service.wait()
            made.clear()
            await orchestrator.cleanup()
            await client.close()
            await nats.stop()


async def _joins(made: Site) -> tuple[web.AppRunner, str]:
    async def answer(request: web.Request) -> web.Response:
        op_id = request.match_info["op_id"]
        expires = (datetime.now(UTC) + timedelta(minutes=15)).isoformat()
        content = {"cluster_id": _CLUSTER, "node_id": made.nodes[op_id], "op_id": op_id, "pool": "default"}
        return web.json_response(content | {"secret": "bench-join-secret", "expires_at": expires})

    app = web.Application()
    app.router.add_post("/api/v1/operations/{op_id}/join", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def _listening(log: Path) -> str:
    """The URL that a server prints when it listens."""
    text = await _found(lambda: log.read_text().partition("Listening at ")[2])
    return text.split()[0]


async def _found(look: Callable[[], str]) -> str:
    deadline = time.perf_counter() + 30
    while time.perf_counter() < deadline:
        if found := look():
            return found
        await asyncio.sleep(0.05)
    raise TimeoutError("nothing within 30 s")


def _sleeper() -> str:
    """The pid of the command of playbook ``endless``, once it runs."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes() == b"sleep\x00999\x00":
                return process.name
    return ""


_PLAIN_SERVER = """
import asyncio
from aiohttp import web
async def handle(request):
    await request.read()
    return web.json_response({"status": "accepted"}, status=202)
async def main():
    app = web.Application()
    app.router.add_post("/provision", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("Listening at http://127.0.0.1:%d " % runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def answers(root: Path) -> tuple[list[float], list[float]]:
    """Milliseconds to 202: of the service, while its only slot is taken (so nothing else runs), and of bare aiohttp."""
    async with site(root, concurrent=1) as one:
        _, body, headers = one.request("endless")
        await one.accepted(body, headers)
        await _found(_sleeper)
        requests = [one.request("trivial")[1:] for _ in range(_ANSWERS)]
        ours = [await _timed(one.accepted, *request) for request in requests]
        with (root / "plain.log").open("wb") as log:
            plain = await asyncio.create_subprocess_exec(sys.executable, "-c", _PLAIN_SERVER, stdout=log)
        try:
            one.url = await _listening(root / "plain.log")  # the same client, another server
            bare = [await _timed(one.accepted, *request) for request in requests]
        finally:
            plain.terminate()
            await plain.wait()
    return ours, bare


async def _timed(work: Callable[..., Awaitable[Any]], *arguments: Any) -> float:
    start = time.perf_counter()
    await work(*arguments)
    return (time.perf_counter() - start) * 1000


async def idle() -> None:
    """Until the machine has been idle for a moment; one that never is, is measured as it is.

    "Idle" is a condition of the target, and on a shared machine somebody else may be at work.
    """
    for _ in range(_QUIET_LOOKS):
        psutil.cpu_percent()
        await asyncio.sleep(_QUIET_SECONDS)
        if psutil.cpu_percent() < _QUIET_PERCENT:
            return


async def execs(one: Site) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds to the exec of ansible-playbook through the service and bare, and seconds of the whole job."""
    watch = ExecWatch(_PROGRAM)
    through, bare, whole = [], [], []
    try:
        for number in range(_EXECS):
            await idle()
            op_id, body, headers = one.request("trivial")
            opened, start = watch.arm(), time.perf_counter()
            await one.accepted(body, headers)
            through.append((await opened - start) * 1000)
            await one.ended(op_id)
            whole.append(time.perf_counter() - start)
            if number < _TRIVIAL_ROUNDS:
                await idle()
                opened, start = watch.arm(), time.perf_counter()
                process = await one.spawn("trivial")
                bare.append((await opened - start) * 1000)
                await process.wait()
    finally:
        watch.close()
    return through, bare, whole


async def pairs(
    rounds: int, one: Site, ours: Callable[[], Awaitable[float]], bare: Callable[[], Awaitable[float]]
) -> tuple[float, float]:
    """Medians of both, measured in turn."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for times, measure in zip(found, (ours, bare), strict=True):
            times.append(await measure())
            one.clear()
            await asyncio.sleep(_QUIET_SECONDS)
    return median(found[0]), median(found[1])


async def together(count: int, work: Callable[[], Awaitable[float]]) -> float:
    """Seconds until so many, started together, have ended."""
    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(count)))
    return time.perf_counter() - start


async def measure(root: Path) -> Sequence[Row]:
    """All rows."""
    make_project(root)
    answered, answered_bare = await answers(root)
    async with site(root) as one:
        for name in ("trivial", "scale_up"):  # byte code and caches
            await one.bare(name)
        await one.job("trivial")
        await one.real_job()
        one.clear()
        through, bare, _ = await execs(one)
        real, real_bare = await pairs(_ROUNDS, one, one.real_job, lambda: one.bare("scale_up"))
        small, small_bare = await pairs(_TRIVIAL_ROUNDS, one, lambda: one.job("trivial"), lambda: one.bare("trivial"))
        many, many_bare = await pairs(
            3, one, lambda: together(_MANY, one.real_job), lambda: together(_MANY, lambda: one.bare("scale_up"))
        )
        crowd, crowd_bare = await pairs(
            3,
            one,
            lambda: together(_MANY, lambda: one.job("trivial")),
            lambda: together(_MANY, lambda: one.bare("trivial")),
        )
    lower: dict[str, Any] = {"better": "lower"}
    return [
        Row("webhook to 202, p50", percentile(answered, 50), "ms", percentile(answered_bare, 50)),
        Row("webhook to 202, p99", percentile(answered, 99), "ms", percentile(answered_bare, 99), target=15, **lower),
        Row("webhook to ansible-playbook exec'd, p50, idle", percentile(through, 50), "ms", percentile(bare, 50)),
        Row("webhook to ansible-playbook exec'd, p99, idle", percentile(through, 99), "ms", percentile(bare, 99),
            target=30, **lower),
        Row("scale_up.yml by webhook to the job's end, against bare ansible-playbook", real, "s", real_bare,
            target=1.10, of="ratio", **lower),
        Row("trivial playbook by webhook to the job's end, against bare", small, "s", small_bare),
        Row(f"{_MANY} x scale_up.yml at once, against {_MANY} bare", many, "s", many_bare),
        Row(f"{_MANY} x trivial playbook at once, against {_MANY} bare", crowd, "s", crowd_bare),
    ]  # fmt: skip


def main() -> int:
    """Measure and report."""
    root = Path(tempfile.mkdtemp(prefix="secbeat-bench-"))
    try:
        rows = asyncio.run(measure(root))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return report("provisioner", rows)


if __name__ == "__main__":
    sys.exit(main())
