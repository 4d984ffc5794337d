"""Copy a job's log: by byte offset, so that a lost connection leaves no gap and no repetition."""

from __future__ import annotations

import http.client
import sys
import time
from typing import Any, Protocol

from secbeat.cli.client import Client, path
from secbeat.cli.output import Output, note
from secbeat.errors import UnreachableError

POLL_SECONDS = 0.5
_FINISHED = {"succeeded", "failed", "cancelled"}
_CHUNK = 1 << 16
_SILENCE_SECONDS = 15.0


class Sink(Protocol):
    """Where the log goes."""

    def write(self, data: bytes, /) -> None:
        """Take the next bytes, cut anywhere."""
        ...

    def end(self) -> None:
        """No more will come."""
        ...


class Raw:
    """Standard output, byte for byte."""

    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def end(self) -> None:
        pass


class Lines:
    """One object per line of the log, of any length; a last line without an end comes when the log has ended."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._parts: list[bytes] = []
        self._number = 0

    def write(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._parts.append(part)
            self._emit()
        if rest:
            self._parts.append(rest)

    def end(self) -> None:
        if self._parts:
            self._emit()

    def _emit(self) -> None:
        self._number += 1
        text = b"".join(self._parts).decode("utf-8", "replace")
        self._parts.clear()
        self._output.stream({"line": self._number, "text": text}, text)


def copy_log(client: Client, op_id: str, sink: Sink, *, follow: bool) -> dict[str, Any] | None:
    """Copy the log of ``op_id``; with ``follow`` until the job has ended: then its record.

    Raises:
        UnreachableError: the provisioner does not answer; with ``follow`` only if it never did.
        SecbeatError: there is no such job, or no right to read it.
    """
    offset, reached = 0, False
    while True:
        copied, complete = 0, False
        try:
            copied, complete = _copy_from(client, op_id, offset, sink, follow=follow)
            offset += copied
            reached = True
            if complete and (ended := _ended(client, op_id) if follow else {}) is not None:
                sink.end()
                return ended or None
        except UnreachableError as error:
            if not (follow and reached):
                raise
            note(f"{error.why}; trying again")
        if not (follow or complete or copied):
            raise UnreachableError("SERVICE_UNREACHABLE", why=f"{client.target.url}: the connection was lost")
        if not copied:
            time.sleep(POLL_SECONDS)


def _ended(client: Client, op_id: str) -> dict[str, Any] | None:
    record: dict[str, Any] = client.get("jobs", op_id)
    return record if record.get("state") in _FINISHED else None


def _copy_from(client: Client, op_id: str, offset: int, sink: Sink, *, follow: bool) -> tuple[int, bool]:
    """Copy what the log has from ``offset`` on: the number of bytes, and whether the answer came to its end.

    With ``follow`` the service ends the answer when the job has ended. A silence is taken for a lost connection: to
    ask again behind the last byte costs little, to wait for a dead peer a lot.

    Raises:
        UnreachableError: the connection was lost before anything came.
    """
    copied = 0
    query = {"offset": offset, "follow": int(follow)}
    with client.open("GET", path("jobs", op_id, "log"), query=query, idle_seconds=_SILENCE_SECONDS) as response:
        while True:
            try:
                chunk = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException):
                return copied, False  # what came counts; the next request goes on behind it
            if not chunk:
                # http.client ends a body quietly when its connection is lost; what it still expected tells.
                return copied, not response.length
            sink.write(chunk)
            copied += len(chunk)
