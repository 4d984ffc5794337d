"""The load generator as a child process: asked for a rate, read for its figures."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from secbeat.demo.reporting import DemoFailed

_END_SECONDS = 30.0


class Load:
    """``python -m secbeat.demo.load`` and its latest report."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._reader = asyncio.create_task(self._read(), name="load reports")
        self._news = asyncio.Event()
        self.latest: dict[str, Any] = {"sent": 0, "ok": 0, "failed": 0, "unsent": 0, "nodes": {}, "failures": []}

    @classmethod
    async def start(cls, api: str) -> Load:
        """Start the generator against the orchestrator at ``api``; it sends nothing before `ask`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "secbeat.demo.load",
            api,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the demo, which ends the load in order
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the generator has closed its reports; while a step waits it must not."""
        return self._reader.done()

    async def ask(self, rate: float) -> None:
        """Requests per second from now on."""
        if self._process.stdin is None:
            raise DemoFailed("the load generator has no standard input")
        self._process.stdin.write(json.dumps({"rate": rate}).encode() + b"\n")
        await self._process.stdin.drain()

    async def next_report(self) -> dict[str, Any]:
        """The report after this moment.

        Raises:
            DemoFailed: the generator ended.
        """
        self._news.clear()
        waiter = asyncio.create_task(self._news.wait())
        await asyncio.wait({waiter, self._reader}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self._reader.done():
            raise DemoFailed(f"the load generator ended with {self._process.returncode}")
        return self.latest

    def node(self, url: str) -> dict[str, Any]:
        """What the generator knows of one node; empty if nothing."""
        found = self.latest["nodes"].get(url, {})
        return found if isinstance(found, dict) else {}

    async def stop(self) -> dict[str, Any]:
        """Let the open requests end; the last report."""
        if self._process.stdin is not None and self._process.returncode is None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._reader
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise DemoFailed(f"the load generator did not end within {_END_SECONDS:.0f} s") from None
        return self.latest

    async def _read(self) -> None:
        if self._process.stdout is None:
            return
        async for line in self._process.stdout:
            self.latest = json.loads(line)
            self._news.set()
