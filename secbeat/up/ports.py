"""Ports of the services: whether a configured one is free, and free ones that stay ours until a service takes them."""

from __future__ import annotations

import errno
import random
import socket
from dataclasses import dataclass, field

from secbeat.errors import ConfigError
from secbeat.settings import split_address

# Below the range from which the kernel takes ports for outgoing connections, so that none of these takes ours.
_LOWEST, _HIGHEST = 20_000, 32_000
_TRIES = 200


@dataclass
class Reservations:
    """Held ports, each behind a host-wide lease: an abstract UNIX socket that bears the address in its name.

    A bound TCP socket alone would not do: without SO_REUSEADDR it cannot be had where connections of the last start
    linger, and with it two instances could hold the same one until one of them listens.
    """

    _held: list[socket.socket] = field(default_factory=list)

    def free(self, host: str, *, preferred: int = 0) -> int:
        """Reserve a free port of ``host``, the preferred one if it is free.

        Raises:
            ConfigError: none was found (PORT_IN_USE), or the address cannot be bound (ADDRESS_UNAVAILABLE).
        """
        choices = [preferred] if preferred else []
        choices += random.sample(range(_LOWEST, _HIGHEST), _TRIES)
        for port in choices:
            lease = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                lease.bind(f"\0secbeat-port-{host}-{port}")
                _bind(host, port)
            except OSError as error:
                lease.close()
                if error.errno != errno.EADDRINUSE:
                    raise ConfigError("ADDRESS_UNAVAILABLE", why=f"{host}: {error.strerror}") from None
            else:
                self._held.append(lease)
                return port
        raise ConfigError("PORT_IN_USE", why=f"{_TRIES} ports of {host} were tried and taken")

    def release(self) -> None:
        """Let all ports go."""
        while self._held:
            self._held.pop().close()


def check_free(key: str, address: str) -> None:
    """Refuse an address that cannot be listened on, naming the configuration key that sets it.

    Raises:
        ConfigError: PORT_IN_USE, ADDRESS_UNAVAILABLE.
    """
    host, port = split_address(address)
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                "PORT_IN_USE",
                why=f"{key} = {address}: another process listens there",
                fix=f"Find it: ss -ltnp 'sport = :{port}' — stop it, or set {key} to another address",
            ) from None
        raise ConfigError("ADDRESS_UNAVAILABLE", why=f"{key} = {address}: {error.strerror or error}") from None


def _bind(host: str, port: int) -> None:
    """Bind as a service does, and let go."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
