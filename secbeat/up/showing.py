"""What `up` shows: a few aligned lines, then a live view on a terminal and log lines elsewhere."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from secbeat.errors import UnreachableError
from secbeat.up.instance import Happening, Instance

_REFRESH_SECONDS = 1.0


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
        """Show the pools until ``stop``."""
        if not self.live:
            await stop.wait()
            return
        with Live(console=self._out, auto_refresh=False, transient=True) as live:
            self._running = live
            try:
                while not stop.is_set():
                    live.update(await self._view(instance), refresh=True)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_REFRESH_SECONDS):
                            await stop.wait()
            finally:
                self._running = None

    async def _view(self, instance: Instance) -> Group:
        try:
            pools = await instance.api.items("/api/v1/pools")
        except UnreachableError as error:
            return Group(Text(f"The orchestrator does not answer: {error.why}"), *self._news())
        return Group(table(pools), *self._news())

    def _news(self) -> list[Text]:
        return [Text(text, style="dim") for text in self._recent]


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


def table(pools: list[dict[str, Any]]) -> Table:
    """The pools, one row each, with the sentence behind the last decision."""
    shown = Table(box=None, pad_edge=False)
    for heading in ("pool", "nodes", "coming", "leaving", "min-max", "cpu"):
        shown.add_column(heading, justify="left" if heading == "pool" else "right", no_wrap=True)
    shown.add_column("last decision")
    for pool in pools:
        cpu = "-" if pool["cpu"] is None else f"{pool['cpu']:.0%}"
        bounds = f"{pool['min']}-{pool['max']}"
        counts = [str(pool[key]) for key in ("active", "pending", "draining")]
        shown.add_row(Text(pool["name"]), *counts, bounds, cpu, Text(_why(pool)))
    return shown


def _why(pool: dict[str, Any]) -> str:
    holds = [name for name in ("pause", "override", "retired") if pool[name]]
    decision = pool["decision"]
    sentence = decision["sentence"] if decision else "no evaluation yet"
    return f"[{', '.join(holds)}] {sentence}" if holds else sentence
