"""A job's log (plain text, what the playbook printed) and its events, and following the log while it grows."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from typing import Any

log = logging.getLogger("provisioner.jobs")

_CHUNK = 256 * 1024
_POLL_SECONDS = 0.5


class LogHub:
    """Where the logs of all jobs lie, and who waits for more of one."""

    def __init__(self, jobs_dir: Path, *, max_bytes: int = 256 << 20) -> None:
        self.jobs_dir = jobs_dir
        self.max_bytes = max_bytes
        self._waiting: dict[str, asyncio.Event] = {}

    def directory(self, op_id: str) -> Path:
        """The job's directory; ``op_id`` was checked to be a ULID."""
        return self.jobs_dir / op_id

    def path(self, op_id: str) -> Path:
        """The job's log file."""
        return self.directory(op_id) / "log"

    def changed(self, op_id: str) -> None:
        """Wake those who follow this job."""
        event = self._waiting.pop(op_id, None)
        if event is not None:
            event.set()

    async def wait(self, op_id: str) -> None:
        """Until the job's log grows or ends, at most half a second: another process may be the one that writes."""
        event = self._waiting.setdefault(op_id, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await event.wait()

    async def follow(
        self, op_id: str, offset: int, *, finished: Callable[[], Awaitable[bool]], follow: bool = True
    ) -> AsyncIterator[bytes]:
        """The log's bytes from ``offset``: whole and once, to its end.

        Args:
            op_id: whose log.
            offset: bytes that the reader has already.
            finished: whether the job has ended, so that no more will come.
            follow: whether to wait for more.
        """
        path = self.path(op_id)
        while True:
            # Asked before reading: what was written before the end is then certainly read.
            over = not follow or await finished()
            while chunk := await asyncio.to_thread(_read, path, offset):
                offset += len(chunk)
                yield chunk
            if over:
                return
            await self.wait(op_id)


def _read(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(_CHUNK)
    except FileNotFoundError:
        return b""


class JobLog:
    """Writes one job's log and events; appends, so that a later attempt continues the same files.

    A full disk loses log lines, not the job: the loss is said once in the service's own log.
    """

    def __init__(self, hub: LogHub, op_id: str) -> None:
        self._hub, self._op_id = hub, op_id
        self._files: dict[str, BufferedWriter] = {}
        self._left = hub.max_bytes
        self._broken = False

    def open(self) -> None:
        """Make the directory and open the files.

        Raises:
            OSError: they cannot be written.
        """
        directory = self._hub.directory(self._op_id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("log", "events.jsonl"):
            path = directory / name
            path.touch(mode=0o600)
            self._files[name] = path.open("ab")
        self._left -= (directory / "log").stat().st_size

    def line(self, text: str) -> None:
        """Text that was printed; one line end is added."""
        if self._left <= 0:
            return
        data = text.encode(errors="replace") + b"\n"
        self._left -= len(data)
        if self._left <= 0:
            data = data[: self._left] + b"\n(the log is cut here: it has reached its limit)\n"
        self._write("log", data)
        self._hub.changed(self._op_id)

    def event(self, event: dict[str, Any]) -> None:
        """One event, as a JSON line."""
        if self._left > 0:
            text = json.dumps(event, default=str, ensure_ascii=False)
            self._write("events.jsonl", text.encode(errors="replace") + b"\n")

    def _write(self, name: str, data: bytes) -> None:
        file = self._files.get(name)
        if file is None:
            return
        try:
            file.write(data)
            file.flush()
        except OSError as error:
            if not self._broken:
                self._broken = True
                log.warning("The log of job %s loses lines: %s", self._op_id, error, extra={"action": "log_broken"})

    def close(self) -> None:
        """Close the files and wake the readers."""
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        self._files.clear()
        self._hub.changed(self._op_id)
