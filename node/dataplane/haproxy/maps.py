"""The maps that HAProxy reads at each request: the node's state, and the blocklist with its ends kept here.

A map's file is what the next start or reload reads; the running proxy is changed over its socket, without a reload.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from node.dataplane.blocklist import Blocklist
from node.dataplane.haproxy.runtime import Runtime
from secbeat.auth import write_secret

State = Literal["serving", "held", "draining"]
FLAGS, BLOCKED = "flags.map", "blocklist.map"
_PER_COMMAND = 200  # a command and its values fit into one of HAProxy's buffers of 16 KiB
_FEW = 500  # more differences than that, and the whole list is replaced: removing one is a search through the list
Tables = dict[tuple[int, int], set[int]]


class StateMap:
    """One entry: in rotation, not yet, or no longer."""

    def __init__(self, directory: Path, runtime: Runtime) -> None:
        self._file, self._runtime = directory / FLAGS, runtime

    def read(self) -> State | None:
        """What the file says."""
        try:
            word = self._file.read_text(encoding="ascii").split()[-1]
        except (OSError, IndexError, UnicodeDecodeError):
            return None
        return word if word in {"serving", "held", "draining"} else None  # type: ignore[return-value]

    def write(self, state: State) -> None:
        """For the next start."""
        write_secret(self._file, f"state {state}\n")

    def put(self, state: State) -> None:
        """In the running proxy, done when this returns.

        Raises:
            RuntimeFailed: it does not answer.
        """
        self._runtime.told_at_once(f"@1 set map {FLAGS} state {state}")


class BlocklistMap:
    """The blocklist as HAProxy has it.

    Args:
        now: Unix time.
    """

    def __init__(self, directory: Path, runtime: Runtime, *, now: Callable[[], float] = time.time) -> None:
        self._file, self._runtime, self._now = directory / BLOCKED, runtime, now
        self._applied: Tables | None = {}
        self.next_end = math.inf

    @property
    def size(self) -> int:
        """Entries in force."""
        return sum(map(len, (self._applied or {}).values()))

    def unknown(self) -> None:
        """The proxy has a list from an earlier agent: it stands until the first one of ours replaces it."""
        self._applied = None

    def write(self, blocklist: Blocklist) -> None:
        """The whole list to the file, for the next start or reload, after which it is in force."""
        live = self._live(blocklist)
        write_secret(self._file, "".join(f"{entry} 1\n" for entry in _texts(live)))
        self._applied = live

    async def follow(self, blocklist: Blocklist) -> None:
        """Make the running proxy's list the same.

        Raises:
            RuntimeFailed: it does not answer; the next call begins anew.
        """
        wanted, applied = self._live(blocklist), self._applied
        self._applied = None
        if applied is None or _differences(wanted, applied) > _FEW:
            await self._replace(wanted)
        else:
            await self._remove(_minus(applied, wanted))
            await self._add(_minus(wanted, applied), "")
        self._applied = wanted

    def _live(self, blocklist: Blocklist) -> Tables:
        now = self._now()
        tables: Tables = {}
        self.next_end = math.inf
        for key, ends in blocklist.tables():
            tables[key] = {number for number, end in ends.items() if end > now}
            self.next_end = min(self.next_end, min((end for end in ends.values() if end > now), default=math.inf))
        return tables

    async def _replace(self, wanted: Tables) -> None:
        answer = await self._runtime.ask(f"@1 prepare map {BLOCKED}")
        version = answer.strip().rpartition(" ")[2]
        await self._add(wanted, f"@{version} ")
        await self._runtime.told(f"@1 commit map @{version} {BLOCKED}")

    async def _add(self, tables: Tables, version: str) -> None:
        for some in _parts(_texts(tables), _PER_COMMAND):
            lines = "".join(f"{entry} 1\n" for entry in some)
            await self._runtime.told(f"@1 add map {version}{BLOCKED} <<\n{lines}")

    async def _remove(self, tables: Tables) -> None:
        for entry in _texts(tables):
            await self._runtime.told(f"@1 del map {BLOCKED} {entry}")


def _differences(one: Tables, two: Tables) -> int:
    return sum(len(one.get(key, set()) ^ two.get(key, set())) for key in one.keys() | two.keys())


def _minus(one: Tables, two: Tables) -> Tables:
    return {key: numbers - two.get(key, set()) for key, numbers in one.items()}


def _texts(tables: Tables) -> Iterator[str]:
    for (family, length), numbers in tables.items():
        kind, bits = (ipaddress.IPv4Address, 32) if family == 4 else (ipaddress.IPv6Address, 128)
        for number in numbers:
            yield f"{kind(number << (bits - length))}/{length}"


def _parts(entries: Iterable[str], size: int) -> Iterator[list[str]]:
    part: list[str] = []
    for entry in entries:
        part.append(entry)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
