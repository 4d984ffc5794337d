"""The services as child processes: their output read line by line, restarted with backoff when they die."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from secbeat.clock import Clock, SystemClock

_PR_SET_PDEATHSIG = 1
_MAX_LINE = 64 * 1024
_TAIL_LINES = 12


class Child:
    """One service process.

    It is in a session of its own, so that Ctrl-C in the terminal reaches us alone, and it is asked to end when this
    process dies, however that happens.

    Args:
        name: the service, for people.
        command: argv.
        environment: the child's whole environment.
        on_line: called with each line of its output.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> None:
        self.name = name
        self._command, self._environment, self._on_line = list(command), dict(environment), on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def pid(self) -> int | None:
        """Of the running process, else None."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it; an earlier process of it has ended."""
        self._close()
        self._tail.clear()
        libc = ctypes.CDLL(None, use_errno=True)
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
            preexec_fn=partial(_die_with_parent, libc, os.getpid()),  # two system calls, nothing that could block
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._reader = asyncio.create_task(self._read(self._process.stdout), name=f"output of {self.name}")

    async def wait(self) -> int:
        """Until the process has ended and its output is read; the exit code (negative: a signal)."""
        if self._process is None:
            return 0
        code = await self._process.wait()
        if self._reader is not None:
            # What it has started may keep the pipe open for longer than we want to wait.
            await asyncio.wait({self._reader}, timeout=1.0)
        return code

    async def stop(self, grace: float) -> None:
        """SIGTERM, ``grace`` seconds, SIGKILL. Safe when it has ended."""
        if self.pid is not None:
            self.send(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace):
                    await self.wait()
            except TimeoutError:
                self.send(signal.SIGKILL)
                await self.wait()
        self._close()

    def _close(self) -> None:
        """Let go of the pipe, which something that the service has started may still hold open."""
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        if self._process is not None:
            self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way

    def send(self, number: signal.Signals) -> None:
        """Signal the process if it runs."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def last_words(self) -> list[str]:
        """The end of its output: the error that it printed for people if there is one, else its last lines."""
        lines = list(self._tail)
        errors = [number for number, line in enumerate(lines) if line.startswith("error")]
        return lines[errors[-1] :] if errors else [sentence(line) for line in lines[-5:]]

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            self._tail.append(line)
            self._on_line(line)


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines of a stream; one that is longer than 64 KiB is cut there, and nothing ever blocks the writer."""
    rest = b""
    while chunk := await stream.read(_MAX_LINE):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line[:_MAX_LINE].decode(errors="replace").rstrip()
        rest = rest[:_MAX_LINE]
    if rest:
        yield rest.decode(errors="replace").rstrip()


def sentence(line: str) -> str:
    """A log line for people: level and message of a JSON line, anything else as it is."""
    try:
        record = json.loads(line)
        return f"{record['level']} {record['message']}"
    except (ValueError, KeyError, TypeError):
        return line


def how_it_ended(code: int) -> str:
    """An exit code for people."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


class Backoff:
    """Waits before a restart: 1, 2, 4 … 30 s; short again after a minute of life."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._started = self._clock.monotonic()
        self._next = 1.0

    def started(self) -> None:
        """The process was started."""
        self._started = self._clock.monotonic()

    def seconds(self) -> float:
        """The wait after the end of the process that was started last."""
        if self._clock.monotonic() - self._started >= 60.0:
            self._next = 1.0
        wait, self._next = self._next, min(self._next * 2, 30.0)
        return wait


def _die_with_parent(libc: ctypes.CDLL, parent: int) -> None:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
