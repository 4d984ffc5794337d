"""Listening sockets, with errors that name the remedy, and enough file descriptors for them."""

from __future__ import annotations

import errno
import resource
import socket

from secbeat.errors import ConfigError
from secbeat.settings import split_address


def bind(address: str) -> socket.socket:
    """A bound, non-blocking TCP socket for ``host:port``; port 0 is any free one.

    Raises:
        ConfigError: PORT_IN_USE, ADDRESS_UNAVAILABLE.
    """
    host, port = split_address(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError("ADDRESS_UNAVAILABLE", why=f"{address}: {error}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError("PORT_IN_USE", why=f"{address} is taken by another process") from None
        raise ConfigError("ADDRESS_UNAVAILABLE", why=f"{address}: {error.strerror}") from None
    return sock


def allow_many_files(wanted: int) -> int:
    """Raise this process's soft limit of open files toward ``wanted``; the limit that now holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        return limit
    return soft
