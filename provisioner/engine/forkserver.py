"""The service's end of the fork server: start it, ask it for job processes, notice when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from provisioner.engine import marks, presence
from provisioner.engine.lines import PipeLines
from provisioner.engine.spec import MAX_MESSAGE, Spec

log = logging.getLogger("provisioner.engine")

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
# An orphaned fork server gives its jobs 15 s to end before it kills them.
_PATIENCE_SECONDS = 20.0
_KILLED_SECONDS = 5.0


class ForkServerLost(Exception):
    """The fork server died; the kernel has told its children, which stop by themselves."""


class JobProcess:
    """One running job process."""

    def __init__(self, server: ForkServer, job: str, lines: PipeLines) -> None:
        loop = asyncio.get_running_loop()
        self._server, self._job, self._lines = server, job, lines
        self.started: asyncio.Future[int] = loop.create_future()
        self._ended: asyncio.Future[int] = loop.create_future()

    def lines(self) -> AsyncIterator[bytes]:
        """What the process prints, line by line, until it has closed its output."""
        return self._lines.read()

    async def ended(self) -> int:
        """Its exit code, negative for a signal.

        Raises:
            ForkServerLost: the fork server died first.
        """
        return await asyncio.shield(self._ended)

    def stop(self) -> None:
        """Ask it to stop its playbook, to sweep and to end."""
        self._server.send({"do": "stop", "job": self._job})

    def kill(self) -> None:
        """SIGKILL it; the fork server sweeps what it leaves."""
        self._server.send({"do": "kill", "job": self._job})

    def close(self) -> None:
        """Let its output go."""
        self._lines.close()

    def settle(self, code: int) -> None:
        """Called by the server when the process has been reaped."""
        if not self._ended.done():
            self._ended.set_result(code)

    def lose(self) -> None:
        """Called by the server when it is gone itself."""
        for future in (self.started, self._ended):
            if not future.done():
                future.set_exception(ForkServerLost("the fork server ended"))
                future.exception()  # retrieved: nobody need be waiting


class ForkServer:
    """Starts the fork server at once and again whenever it has died.

    Args:
        environment: that of the server process; job processes get their own.
        presence_file: a file that the server and every job process hold locked. A new server starts when nobody holds
            it any more, so that nothing of the one before (of this service, or of one that was killed) runs beside it.
    """

    def __init__(self, environment: dict[str, str], presence_file: Path | None = None) -> None:
        self._environment = environment | ({} if presence_file is None else {presence.MARK: str(presence_file)})
        self._presence = presence_file
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._jobs: dict[str, JobProcess] = {}
        self._starting = asyncio.Lock()
        self._closed = False
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Of the fork server while it lives."""
        return self._process.pid if self._channel is not None and self._process is not None else None

    async def start(self) -> None:
        """Start it unless it runs, as soon as nothing of the one before is left.

        Raises:
            ForkServerLost: it is left, even after a SIGKILL.
        """
        async with self._starting:
            if self._channel is not None or self._closed:
                return
            held = await self._alone()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                ours.setblocking(False)
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "provisioner.engine.zygote",
                    str(theirs.fileno()),
                    str(os.getpid()),
                    *([] if held is None else [str(held)]),
                    pass_fds=[theirs.fileno(), *([] if held is None else [held])],
                    stdin=asyncio.subprocess.DEVNULL,
                    env=self._environment,
                )
            if held is not None:
                os.close(held)  # from now on it is theirs
            self._channel = ours
            asyncio.get_running_loop().add_reader(ours, self._receive, ours)

    async def _alone(self) -> int | None:
        if self._presence is None:
            return None
        held = os.open(self._presence, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            alone = await presence.taken(held, _PATIENCE_SECONDS)
            if not alone:
                log.error("Processes of an earlier start do not end and are killed", extra={"action": "jobs_killed"})
                await asyncio.to_thread(_kill_servers, str(self._presence))
                alone = await presence.taken(held, _KILLED_SECONDS)
        except BaseException:
            os.close(held)
            raise
        if not alone:
            os.close(held)
            raise ForkServerLost("processes of an earlier start do not end, not even by SIGKILL")
        return held

    async def run(self, spec: Spec) -> JobProcess:
        """Fork a process for a job.

        Raises:
            ForkServerLost: it could not be started, or died meanwhile.
        """
        await self.start()
        if self._channel is None:
            raise ForkServerLost("the fork server is closed")
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                fcntl.fcntl(writing, _F_SETPIPE_SZ, _PIPE_BYTES)
            os.set_blocking(reading, False)
            _, lines = await asyncio.get_running_loop().connect_read_pipe(PipeLines, os.fdopen(reading, "rb", 0))
            job = JobProcess(self, spec.job, lines)
            self._jobs[spec.job] = job
            message = json.dumps({"do": "run", "job": spec.job, "spec": asdict(spec)}).encode()
            try:
                socket.send_fds(self._channel, [message], [writing])
            except OSError as error:
                self._jobs.pop(spec.job, None)
                job.close()
                raise ForkServerLost(str(error)) from None
        finally:
            os.close(writing)
        await job.started
        return job

    def send(self, message: dict[str, str]) -> None:
        """Pass a request on; without a server there is nobody left to ask."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send(json.dumps(message).encode())

    def _receive(self, channel: socket.socket) -> None:
        try:
            data = channel.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(channel)
            return
        message = json.loads(data)
        job = self._jobs.get(message["job"])
        if job is None:
            return
        if "started" in message and not job.started.done():
            job.started.set_result(message["started"])
        elif "ended" in message:
            del self._jobs[message["job"]]
            job.settle(message["ended"])

    def _lost(self, channel: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(channel)
        channel.close()
        self._channel = None
        jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.lose()
        if not self._closed:
            self.restarts += 1
            log.error("The fork server ended with %d jobs running", len(jobs), extra={"action": "fork_server_lost"})

    async def watch(self) -> None:
        """Start it again whenever it has ended; runs until cancelled."""
        delay = 0.1
        while True:
            try:
                await self.start()
            except ForkServerLost as error:
                log.warning("%s", error, extra={"action": "fork_server_lost"})
                await asyncio.sleep(10.0)
                continue
            process = self._process
            if process is None:
                return
            began = asyncio.get_running_loop().time()
            await process.wait()
            delay = 0.1 if asyncio.get_running_loop().time() - began > 60 else min(delay * 2, 10.0)
            await asyncio.sleep(delay)

    async def close(self, timeout: float = 20.0) -> None:
        """End it and, through it, every job process."""
        self._closed = True
        if self._channel is not None:
            self._channel.shutdown(socket.SHUT_RDWR)
            self._lost(self._channel)
        if self._process is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _kill_servers(presence_file: str) -> None:
    marks.end(marks.servers(presence_file))
