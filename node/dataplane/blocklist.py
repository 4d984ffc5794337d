"""Blocked addresses and networks: a look-up costs the same with ten entries and with a hundred thousand."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
_MAX_ENTRIES = 1_000_000


@lru_cache(maxsize=8192)
def parse_address(text: str) -> Address | None:
    """The address in ``text``, an IPv4-mapped one as IPv4; None if it is none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


class Blocklist:
    """An immutable set of networks: one hash table per prefix length in use, of which there are few."""

    def __init__(self, version: int = 0, entries: Iterable[str] = ()) -> None:
        self.version = version
        self._tables: dict[tuple[int, int], set[int]] = {}
        self.size = 0
        for entry in entries:
            self._add(ip_network(entry, strict=False))
        self._shifts = {
            4: [(32 - length, table) for (family, length), table in self._tables.items() if family == 4],
            6: [(128 - length, table) for (family, length), table in self._tables.items() if family == 6],
        }

    def _add(self, network: IPv4Network | IPv6Network) -> None:
        if self.size >= _MAX_ENTRIES:
            raise ValueError(f"a blocklist holds at most {_MAX_ENTRIES:,} entries")
        table = self._tables.setdefault((network.version, network.prefixlen), set())
        table.add(int(network.network_address) >> (network.max_prefixlen - network.prefixlen))
        self.size += 1

    def blocks(self, address: str) -> bool:
        """Whether ``address`` is in one of the networks; what is no address is not."""
        if not self.size:
            return False
        parsed = parse_address(address)
        if parsed is None:
            return False
        number = int(parsed)
        return any(number >> shift in table for shift, table in self._shifts[parsed.version])
