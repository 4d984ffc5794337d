"""What can never be blocked: our own nodes, the control plane, load balancers. A block of one cuts off everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol

from orchestrator.rules.blocklist import Network
from secbeat.errors import RefusedError
from secbeat.wire.nodes import NodeRecord

_READ_PER_TURN = 50
Address = IPv4Address | IPv6Address


class Addressed(Protocol):
    """A node, as far as its addresses are concerned; ``packed`` is another object when its record has changed."""

    node_id: str
    packed: bytes

    @property
    def record(self) -> NodeRecord: ...


class Protected:
    """The check.

    Args:
        networks: configured ones (``orchestrator.never_block``), trusted proxies.
        hosts: addresses of the control plane; names and wildcards among them are left out.
        nodes: the nodes known now.
    """

    def __init__(
        self,
        networks: Iterable[Network] = (),
        *,
        hosts: Iterable[str] = (),
        nodes: Callable[[], Iterable[Addressed]] = tuple,
    ) -> None:
        self._networks = list(networks)
        self._hosts = {address for host in hosts if (address := _address(host)) and not address.is_unspecified}
        self._nodes = nodes
        self._known: dict[str, tuple[bytes, frozenset[Address]]] = {}

    async def check(self, ip: str) -> None:
        """Return if ``ip`` (canonical) may be blocked.

        Raises:
            RefusedError: RULE_PROTECTED (409).
        """
        wanted = ip_network(ip)
        for network in self._networks:
            if network.version == wanted.version and network.overlaps(wanted):
                self._refuse(ip, f"{network}, a network that the configuration protects")
        for host in self._hosts:
            if host in wanted:
                self._refuse(ip, f"{host}, an address of the control plane")
        await self._learn()
        for node_id, (_, addresses) in self._known.items():
            if any(address in wanted for address in addresses):
                self._refuse(ip, f"an address of node {node_id}")

    def _refuse(self, ip: str, what: str) -> None:
        raise RefusedError("RULE_PROTECTED", why=f"{ip} covers {what}")

    async def _learn(self) -> None:
        """Read the records that are new or have changed; a record costs 20 µs, a fleet may have ten thousand."""
        nodes = {node.node_id: node for node in self._nodes()}
        for gone in self._known.keys() - nodes.keys():
            del self._known[gone]
        read = 0
        for node_id, node in nodes.items():
            known = self._known.get(node_id)
            if known is not None and known[0] is node.packed:
                continue
            self._known[node_id] = node.packed, _addresses(node.record)
            read += 1
            if read % _READ_PER_TURN == 0:
                await asyncio.sleep(0)


def _addresses(record: NodeRecord) -> frozenset[Address]:
    machine = record.machine.address if record.machine is not None else None
    found = (_address(text) for text in (record.public_ip, record.peer_address, machine) if text)
    return frozenset(address for address in found if address is not None)


def _address(text: str) -> Address | None:
    try:
        found = ip_address(text.strip("[]"))
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
