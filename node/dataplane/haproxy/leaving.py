"""The end of a drain: no new connections, idle ones close in peace, tunnels last, the agent's deadline over all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from node.dataplane.haproxy.counters import Counting
from node.dataplane.haproxy.process import Master
from node.dataplane.haproxy.runtime import Runtime, RuntimeFailed

_LOOK = 0.05
_LINGER = 1.0
_CLOSED_SECONDS = 2.0


class Leaving:
    """How HAProxy leaves."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def close(self, master: Master) -> None:
        """Soft stop; returns when the listener is closed, or HAProxy has ended already for want of connections."""
        workers = list(master.workers)
        master.soft_stop()
        loop = asyncio.get_running_loop()
        end = loop.time() + _CLOSED_SECONDS
        while master.running and loop.time() < end:
            with contextlib.suppress(RuntimeFailed):
                answers = [await self._runtime.ask(f"@!{worker} show stat main 1 -1") for worker in workers]
                if all(",OPEN," not in answer for answer in answers):
                    return
            await asyncio.sleep(0.01)

    async def settle(
        self, master: Master, seconds: float, count: Callable[[], Awaitable[None]], counting: Counting
    ) -> None:
        """Wait until HAProxy has ended, or nothing but silent connections is left, or the time is over.

        Each response has said ``Connection: close``: what has been silent for a second since the last one has nothing
        more to ask. A connection whose next request is on its way is answered meanwhile.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        linger = min(_LINGER, seconds / 4)
        quiet_since, requests = loop.time(), -1
        while master.running and loop.time() < end:
            with contextlib.suppress(RuntimeFailed, ValueError):
                await count()
            total = counting.total
            if total.in_flight or total.requests != requests:
                quiet_since, requests = loop.time(), total.requests
            elif loop.time() - quiet_since >= linger:
                return
            await asyncio.sleep(min(_LOOK, max(0.0, end - loop.time())))
        if not master.running:
            counting.read({})
