"""HAProxy's runtime API over the master's socket: one command, one answer.

The socket lies in a directory whose path may be longer than the 107 bytes that a socket address holds, so it is
reached through an open file descriptor of the directory.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

MASTER = "master.sock"
_LIMIT = 64 * 1024 * 1024


class RuntimeFailed(Exception):
    """No answer, or one that says what was wrong."""


class Place:
    """A directory, and short names for the sockets in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def short(self, name: str) -> str:
        """A path of the file that always fits."""
        return f"/proc/self/fd/{self._fd}/{name}"

    def close(self) -> None:
        """Free the descriptor; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Runtime:
    """Asks the master, or through it a worker (``@1`` the present one, ``@!PID`` a former one)."""

    def __init__(self, place: Place, *, timeout: float = 2.0) -> None:
        self._place, self._timeout = place, timeout

    async def ask(self, command: str) -> str:
        """The answer to a command.

        Raises:
            RuntimeFailed: nobody answers, or not in time.
        """
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_unix_connection(self._place.short(MASTER), limit=_LIMIT)
                try:
                    writer.write(command.encode() + b"\n")
                    writer.write_eof()
                    return (await reader.read()).decode(errors="replace")
                finally:
                    writer.close()
        except TimeoutError:
            raise RuntimeFailed(f"{_name(command)}: no answer in time") from None
        except OSError as error:
            raise RuntimeFailed(f"{_name(command)}: {error}") from None

    async def told(self, command: str) -> None:
        """A command whose answer is empty when all is well.

        Raises:
            RuntimeFailed: no answer, or a complaint.
        """
        _silent(command, await self.ask(command))

    def told_at_once(self, command: str, *, timeout: float = 0.5) -> None:
        """As `told`, but done when this returns: for what must hold from the very next request on.

        Raises:
            RuntimeFailed: no answer, or a complaint.
        """
        answer = bytearray()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(timeout)
                sock.connect(self._place.short(MASTER))
                sock.sendall(command.encode() + b"\n")
                sock.shutdown(socket.SHUT_WR)
                while part := sock.recv(65536):
                    answer += part
        except OSError as error:
            raise RuntimeFailed(f"{_name(command)}: {error}") from None
        _silent(command, answer.decode(errors="replace"))


def _silent(command: str, answer: str) -> None:
    if said := answer.strip():
        raise RuntimeFailed(f"{_name(command)}: {said.splitlines()[0][:200]}")


def _name(command: str) -> str:
    # The rest may be a certificate's key.
    return " ".join(command.split("\n", 1)[0].split()[:4])
