"""Which addresses the orchestrator dials: a node must not be able to send it anywhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from secbeat.errors import RefusedError

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]


def within(address: str, networks: Networks) -> bool:
    """Whether ``address`` (text of an IP) lies in one of ``networks``; what is no address lies nowhere."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks if network.version == parsed.version)


def is_loopback(address: str) -> bool:
    """Whether ``address`` is a loopback address."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def check(address: Address, networks: Networks) -> Address:
    """``address`` if the orchestrator may dial it.

    Link-local (cloud metadata), multicast, unspecified and IPv4-mapped addresses are refused whatever the
    configuration says; loopback only where ``node_networks`` names it.

    Raises:
        RefusedError: ADDRESS_REFUSED.
    """
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    never = address.is_link_local or address.is_multicast or address.is_unspecified or mapped
    if never or not within(str(address), networks):
        raise RefusedError("ADDRESS_REFUSED", why=f"{address} is not in node_networks" if not never else f"{address}")
    return address


async def resolve(host: str, networks: Networks) -> Address:
    """The address to dial for ``host``, resolved once, so that no second answer of a name server can replace it.

    Raises:
        RefusedError: ADDRESS_REFUSED (not allowed, or no such name).
    """
    try:
        return check(ip_address(host.strip("[]")), networks)
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RefusedError("ADDRESS_REFUSED", why=f"{host[:200]} does not resolve: {error}") from None
    return check(ip_address(found[0][4][0]), networks)


def url_host(address: Address) -> str:
    """``address`` as it stands in a URL: IPv6 in brackets."""
    return f"[{address}]" if address.version == 6 else str(address)
