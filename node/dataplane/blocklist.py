"""Blocked addresses and networks: a look-up costs the same with ten entries and with a hundred thousand.

An entry stands until its end, which every look-up checks: a block ends on time on every node, whoever removes it later.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address
Place = tuple[int, int, int]
"""Family, prefix length, network number."""

FOREVER = float("inf")
_MAX_ENTRIES = 1_000_000
_SWEPT_AT_ONCE = 1000


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


def place(entry: str) -> Place:
    """Where an address or a network stands.

    Raises:
        ValueError: it is neither.
    """
    if "/" not in entry:
        try:
            # Ten times as fast as ipaddress; a hundred thousand are read at a node's start.
            if ":" in entry:
                return 6, 128, int.from_bytes(socket.inet_pton(socket.AF_INET6, entry), "big")
            return 4, 32, int.from_bytes(socket.inet_pton(socket.AF_INET, entry), "big")
        except OSError:
            raise ValueError(f"{entry[:64]!r} is no address") from None
    network = ip_network(entry, strict=False)
    return (
        network.version,
        network.prefixlen,
        int(network.network_address) >> (network.max_prefixlen - network.prefixlen),
    )


class Blocklist:
    """A set of networks with their ends: one hash table per prefix length in use, of which there are few.

    Args:
        entries: addresses or networks that stand for ever.
        now: Unix time.
    """

    def __init__(self, version: int = 0, entries: Iterable[str] = (), *, now: Callable[[], float] = time.time) -> None:
        self.version = version
        self.size = 0
        self._now = now
        self._tables: dict[tuple[int, int], dict[int, float]] = {}
        self._shifts: dict[int, list[tuple[int, dict[int, float]]]] = {4: [], 6: []}
        self._soonest = FOREVER
        for entry in entries:
            self.put(place(entry))

    def put(self, where: Place, end: float = FOREVER) -> None:
        """Add an entry, or give it another end.

        Raises:
            ValueError: the list is full.
        """
        family, length, number = where
        table = self._tables.get((family, length))
        if table is None:
            table = self._tables[family, length] = {}
            self._shifts[family].append(((32 if family == 4 else 128) - length, table))
        if number not in table:
            if self.size >= _MAX_ENTRIES:
                raise ValueError(f"a blocklist holds at most {_MAX_ENTRIES:,} entries")
            self.size += 1
        table[number] = end
        self._soonest = min(self._soonest, end)

    def discard(self, where: Place) -> None:
        """Remove an entry; removing what is absent is no error."""
        family, length, number = where
        table = self._tables.get((family, length))
        if table is not None and table.pop(number, None) is not None:
            self.size -= 1

    def tables(self) -> Iterable[tuple[tuple[int, int], Mapping[int, float]]]:
        """Every entry, for a driver that keeps its own: (family, prefix length) and the ends by network number."""
        return self._tables.items()

    def sweep(self) -> Iterator[None]:
        """Free what has ended; pauses every thousand entries, and changes nothing while it pauses."""
        now = self._now()
        if self._soonest > now:
            return
        self._soonest = FOREVER
        for family, length in list(self._tables):
            table = self._tables[family, length]
            for number, (key, end) in enumerate(list(table.items()), 1):
                if end <= now:
                    if table.get(key) == end:
                        self.discard((family, length, key))
                else:
                    self._soonest = min(self._soonest, end)
                if number % _SWEPT_AT_ONCE == 0:
                    yield
        self._shifts = {
            family: [(shift, table) for shift, table in shifts if table] for family, shifts in self._shifts.items()
        }
        self._tables = {place: table for place, table in self._tables.items() if table}

    def blocks(self, address: str) -> bool:
        """Whether ``address`` is in one of the networks; what is no address is not."""
        if not self.size:
            return False
        parsed = parse_address(address)
        if parsed is None:
            return False
        number = int(parsed)
        for shift, table in self._shifts[parsed.version]:
            end = table.get(number >> shift)
            if end is not None and end > self._now():
                return True
        return False
