"""Loopback addresses for local machines, handed out host-wide without a file that could go stale.

The lease of an address is an abstract UNIX socket with the address in its name. Binding is atomic in the kernel, so
any number of concurrent starts get different addresses; the machine's process inherits the socket, so the name is free
again when that process is gone, however it ended.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from secbeat.errors import SecbeatError

_FIRST, _LAST = (127 << 24) + (1 << 8) + 10, (127 << 24) + (250 << 8) + 254  # 127.0.1.10 to 127.0.250.254
_BEYOND = "127.0.251.1"  # no machine ever has it


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that is ours while ``holder`` (or an inherited copy of it) is open."""

    address: str
    holder: socket.socket

    def close(self) -> None:
        """Let go of our copy."""
        self.holder.close()


def candidates() -> Iterator[str]:
    """127.0.1.10 upward, without .0 and .255."""
    for number in range(_FIRST, _LAST + 1):
        if 0 < number & 255 < 255:
            yield socket.inet_ntoa(number.to_bytes(4, "big"))


def lease(ports: Sequence[int]) -> Lease:
    """The lowest address that nobody holds and on which all ``ports`` are free.

    Raises:
        SecbeatError: there is none (MACHINE_NO_ADDRESS).
    """
    taken: set[int] = set()
    for address in candidates():
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            holder.bind(f"\0secbeat-machine-{address}")
        except OSError as error:
            holder.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        busy = {port for port in ports if not _free(address, port)}
        if not busy:
            return Lease(address, holder)
        holder.close()
        taken |= busy
        if any(not _free(_BEYOND, port) for port in busy):
            break  # a wildcard listener: no other address would do
    named = ", ".join(str(port) for port in sorted(taken))
    why = f"port {named} is taken by another program on every address" if taken else "all addresses are in use"
    raise SecbeatError("MACHINE_NO_ADDRESS", why=why)


def _free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
