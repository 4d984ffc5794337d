"""What `up` shows: a few aligned lines, then a live view on a terminal and log lines elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

from secbeat.errors import UnreachableError
from secbeat.up.api import Api
from secbeat.up.instance import Happening, Instance
from secbeat.up.keyboard import keys
from secbeat.up.view import Seen, draw

_REFRESH_SECONDS = 1.0
_EVENTS = 12


class Screen:
    """Data on standard output, everything else on standard error; nothing moves where no terminal is."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._out = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._err = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._recent: deque[str] = deque(maxlen=4)
        self._running: Live | None = None

    def lines(self, lines: Iterable[str]) -> None:
        """Print what the command says about itself."""
        for line in lines:
            self._out.print(Text(line))
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print a sentence about what happens."""
        self._err.print(Text(text))

    def happening(self, happening: Happening) -> None:
        """A service is ready, died, was started again."""
        text = f"{happening.at.astimezone():%H:%M:%S}  {happening.sentence}"
        if self._running is None:
            self.note(text)
        else:
            self._recent.append(text)

    def service_line(self, _service: str, line: str) -> None:
        """A service wrote a line: on a terminal it is in the log files, elsewhere it is passed on as it is."""
        if not self.live:
            with suppress(OSError):
                sys.stderr.write(line + "\n")
                sys.stderr.flush()

    def leaving(self, nodes: int, operations: int) -> None:
        """Progress of the end."""
        self.note(f"{nodes} local {'node' if nodes == 1 else 'nodes'} left, {operations} operations under way")

    async def watch(self, instance: Instance, stop: asyncio.Event) -> None:
        """Show what runs until ``stop``, which the key q sets."""
        if not self.live:
            await stop.wait()
            return

        def pressed(key: str) -> None:
            if key in "qQ":
                stop.set()

        resized = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, resized.set)
        seen = Seen()
        # The alternate way, a whole screen of its own, would hide where everything is: the lines above stay.
        with keys(pressed), Live(console=self._out, auto_refresh=False, transient=True) as live:
            self._running = live
            try:
                while not stop.is_set():
                    seen = await look(instance.api, seen, tuple(self._recent))
                    live.update(draw(seen, datetime.now(UTC), self._out.height - 1, self._out.width), refresh=True)
                    await _first(stop, resized)
                    resized.clear()
            finally:
                self._running = None
                loop.remove_signal_handler(signal.SIGWINCH)


async def look(api: Api, before: Seen, happenings: tuple[str, ...]) -> Seen:
    """What the API says now; while it is silent what it said last, with the reason."""
    try:
        pools, operations, events = await asyncio.gather(
            api.items("/api/v1/pools"), api.items("/api/v1/operations?open=1"), api.events(_EVENTS)
        )
    except UnreachableError as error:
        return replace(before, trouble=error.why, happenings=happenings)
    return Seen(pools, operations, events, happenings=happenings)


async def _first(*events: asyncio.Event) -> None:
    """Until one of the events, or the next refresh."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=_REFRESH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def summary(instance: Instance) -> list[str]:
    """Where everything is: at most eight aligned lines."""
    urls, state = instance.urls, instance.state
    nats = f"{urls.nats} (own server)" if instance.nats_identity is not None else urls.nats
    ending = "Ctrl-C: local nodes drain and leave, then the services stop"
    rows = {
        "Orchestrator": urls.orchestrator,
        "Provisioner": urls.provisioner or "none: your own receiver is called",
        "Metrics": urls.metrics,
        "NATS": nats,
        "State": f"{state.path} (kept)",
        "Tokens": f"{instance.token_file('admin')} (also operate, read, service)",
        "Logs": str(state.logs),
        "Stop": ending,
    }
    return [f"{label + ':':<14}{value}" for label, value in rows.items()]
