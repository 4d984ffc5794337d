"""The demo's eyes: process table, heartbeats, the API's answers, the store. Nothing here is told by what it watches."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil

from secbeat import subjects
from secbeat.demo.reporting import DemoFailed
from secbeat.store import Bucket
from secbeat.wire.heartbeat import decode_frame
from secbeat.wire.operations import ENDED


@dataclass
class Seen:
    """The last heartbeat of one node."""

    status: str
    at: float
    count: int


class Heartbeats:
    """Listens to ``secbeat.hb.*`` beside the orchestrator."""

    def __init__(self) -> None:
        self.nodes: dict[str, Seen] = {}

    def on_message(self, _subject: str, payload: bytes) -> None:
        """Remember the status; a malformed heartbeat is not a heartbeat."""
        try:
            frame = decode_frame(payload)
        except msgspec.MsgspecError:
            return
        before = self.nodes.get(frame.node_id)
        self.nodes[frame.node_id] = Seen(frame.status, time.time(), before.count + 1 if before else 1)


class Processes:
    """The processes of local machines, by their pid files, and the CPU that they have used."""

    def __init__(self, machines_dir: Path) -> None:
        self._machines = machines_dir
        self.known: dict[str, psutil.Process] = {}

    def look(self) -> dict[str, psutil.Process]:
        """Machine name → living process; everything ever seen stays in ``known``."""
        for directory in self._machines.glob("*"):
            if directory.name in self.known:
                continue
            try:
                pid = int(json.loads((directory / "pid").read_text())["pid"])
                self.known[directory.name] = psutil.Process(pid)
            except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
                continue
        return {name: process for name, process in self.known.items() if self.alive(process)}

    @staticmethod
    def alive(process: psutil.Process) -> bool:
        """Whether it runs; a zombie does not."""
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def cpu_seconds(self, names: Collection[str]) -> float:
        """CPU seconds that these living nodes have used so far."""
        total = 0.0
        for name, process in self.look().items():
            if name not in names:
                continue
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def directories(self) -> list[str]:
        """Machine directories that exist."""
        return sorted(path.name for path in self._machines.glob("*"))


class Api:
    """Reads of the orchestrator's API."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str) -> Any:
        """The JSON answer.

        Raises:
            DemoFailed: no 200, or no answer.
        """
        try:
            async with self._session.get(f"{self._url}{path}") as answer:
                if answer.status != 200:
                    raise DemoFailed(f"GET {path} answered {answer.status}: {(await answer.text())[:300]}")
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DemoFailed(f"GET {path}: {type(error).__name__}: {error}") from None

    async def nodes(self) -> list[dict[str, Any]]:
        """All nodes, those that are not listed to the original's clients included."""
        found = await self.get("/api/v1/nodes?all=1")
        return list(found)


async def leftovers(bucket: Bucket) -> list[str]:
    """Keys that should be gone before NATS stops: any node, any operation that has not ended."""
    left = [f"key {entry.key}" for entry in await bucket.entries("node.")]
    for entry in await bucket.entries("op."):
        state = json.loads(entry.value).get("state")
        if state not in ENDED:
            left.append(f"operation {entry.key.removeprefix('op.')} in state {state}")
    return left


async def survivors(processes: Mapping[str, psutil.Process], seconds: float) -> list[str]:
    """Those of the processes that still run after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        running = [f"process {name} ({known.pid})" for name, known in processes.items() if Processes.alive(known)]
        if not running or time.monotonic() > deadline:
            return running
        await asyncio.sleep(0.05)


STATE_BUCKET = subjects.STATE_BUCKET
