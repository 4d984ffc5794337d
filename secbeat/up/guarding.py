"""Keep services running: one that dies is started again, after a wait that grows, and it is said each time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from secbeat.bus.server import NatsServer
from secbeat.errors import SecbeatError
from secbeat.up.children import Backoff, Child, how_it_ended

Say = Callable[[str, str], None]


async def keep(child: Child, say: Say) -> None:
    """Restart ``child`` whenever it ends, until cancelled."""
    backoff = Backoff()
    while True:
        code = await child.wait()
        wait = backoff.seconds()
        words = child.last_words()
        said = f": {words[0]}" if words else ""
        say("service.died", f"{child.name} ended ({how_it_ended(code)}){said}; it starts again in {wait:.0f} s")
        await asyncio.sleep(wait)
        await child.start()
        backoff.started()
        say("service.restarted", f"{child.name} was started again (pid {child.pid})")


async def keep_nats(server: NatsServer, say: Say) -> None:
    """Restart the NATS server whenever it ends, at its old address if that can be had, until cancelled."""
    backoff = Backoff()
    url = server.url
    while True:
        code = await server.wait()
        say("service.died", f"nats ended ({how_it_ended(code)}); it starts again")
        await _start_again(server, backoff, say)
        if server.url != url:
            say("service.moved", f"nats is at {server.url} now and the services look for it at {url}: start again")
        say("service.restarted", f"nats was started again (pid {server.pid})")


async def _start_again(server: NatsServer, backoff: Backoff, say: Say) -> None:
    while True:
        await asyncio.sleep(backoff.seconds())
        await server.stop()
        try:
            await server.start()
        except SecbeatError as error:
            say("service.died", f"nats does not start: {error.why}")
        else:
            backoff.started()
            return
