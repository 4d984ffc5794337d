"""HAProxy's process: started apart from the agent, adopted from an earlier one, watched, reloaded, stopped.

It is no child that dies with us: the agent may crash and come back while requests are served. Its end is seen through
a pidfd, which works for a process that somebody else has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time

from node.dataplane.haproxy.config import CONFIG
from node.dataplane.haproxy.program import Program, complaint, environment
from node.dataplane.haproxy.runtime import MASTER, Place, Runtime, RuntimeFailed
from secbeat.errors import ConfigError

_LOG = "haproxy.log"
_START_SECONDS = 20.0


class Master:
    """The master process of one HAProxy; ``pid`` is 0 while there is none."""

    def __init__(self, program: Program, place: Place, runtime: Runtime) -> None:
        self._program, self._place, self._runtime = program, place, runtime
        self._child: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self.pid = 0
        self.workers: list[int] = []
        self.former: list[int] = []
        self.ended = asyncio.Event()

    @property
    def running(self) -> bool:
        return self.pid != 0 and not self.ended.is_set()

    async def adopt(self) -> bool:
        """Take over one that an earlier agent started and that still serves."""
        try:
            await self.look()
        except RuntimeFailed:
            return False
        if not self.workers:
            return False
        self._watch(self.pid)
        return True

    async def start(self) -> None:
        """Start one and wait until it serves.

        Raises:
            ConfigError: HAPROXY_FAILED, with its words.
        """
        path = self._place.path
        with contextlib.suppress(FileNotFoundError):
            (path / MASTER).unlink()
        with (path / _LOG).open("wb") as output:
            self._child = subprocess.Popen(  # noqa: ASYNC220, S603 - it must outlive this process; fork and exec only
                [
                    self._program.path,
                    "-W",
                    "-f",
                    CONFIG,
                    "-p",
                    "haproxy.pid",
                    "-S",
                    f"unix@{MASTER},mode,600,level,admin",
                ],
                cwd=path,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._watch(self._child.pid)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if self.ended.is_set() or time.monotonic() > deadline:
                await self.kill()
                raise ConfigError("HAPROXY_FAILED", why=complaint(self.output()))
            with contextlib.suppress(RuntimeFailed):
                await self.look()
                if self.workers:
                    return
            await asyncio.sleep(0.01)

    async def reload(self) -> None:
        """Read the files anew without losing a connection; returns when the new worker serves.

        Raises:
            ConfigError: HAPROXY_REFUSED; the former configuration goes on.
        """
        before = self.workers
        with contextlib.suppress(RuntimeFailed):
            await self._runtime.ask("reload")
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeFailed):
                await self.look()
                if self.workers and self.workers != before:
                    return
            await asyncio.sleep(0.02)
        raise ConfigError("HAPROXY_REFUSED", why=complaint(self.output()))

    async def look(self) -> None:
        """Learn the processes from the master.

        Raises:
            RuntimeFailed: nobody answers.
        """
        workers: list[int] = []
        former: list[int] = []
        section = workers
        for line in (await self._runtime.ask("show proc")).splitlines():
            words = line.split()
            if line.startswith("# old workers"):
                section = former
            elif len(words) > 1 and words[1] == "master":
                self.pid = int(words[0])
            elif len(words) > 1 and words[1] == "worker":
                section.append(int(words[0]))
        self.workers, self.former = workers, former

    def output(self) -> str:
        """What it has written; at most the last 64 KiB."""
        try:
            return (self._place.path / _LOG).read_bytes()[-65536:].decode(errors="replace")
        except OSError:
            return ""

    def soft_stop(self) -> None:
        """Accept no new connection; end when the last one has ended, or after ``hard-stop-after``."""
        self._send(signal.SIGUSR1)

    async def kill(self) -> None:
        """End it now."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.running:
                self._send(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(3.0):
                        await self.ended.wait()
        self.let_go()

    def let_go(self) -> None:
        """Watch it no longer, and leave it as it is."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self.pid = 0

    def _send(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _watch(self, pid: int) -> None:
        self.let_go()
        self.pid = pid
        self.ended = asyncio.Event()
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.ended.set()
            return
        asyncio.get_running_loop().add_reader(self._pidfd, self._gone)

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        if self._child is not None:
            self._child.poll()
        self.ended.set()
