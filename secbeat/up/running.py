"""The command's life: start, show, and on Ctrl-C take the nodes and the services down in order."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from secbeat.errors import SecbeatError
from secbeat.paths import default_state_dir
from secbeat.up.instance import Instance
from secbeat.up.showing import Screen, summary

INTERRUPTED = 130


class Wishes:
    """What the signals ask for: first an orderly end, then a quick one."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()

    def ask(self) -> None:
        """A signal came."""
        (self.hurry if self.stop.is_set() else self.stop).set()


def run(*, config: Path | None, state: Path | None, provisioner: bool = True) -> int:
    """Run an instance until it is told to end; the exit code.

    0: ended in order. 1: local nodes were left behind. 130: interrupted while starting, or twice.

    Raises:
        SecbeatError: the start failed; its exit code is the command's (2 for a broken set-up).
    """
    return asyncio.run(_run(config, state or default_state_dir(), provisioner=provisioner))


async def _run(config: Path | None, state: Path, *, provisioner: bool) -> int:
    screen = Screen()
    instance = Instance(
        state, config=config, provisioner=provisioner, on_happening=screen.happening, on_line=screen.service_line
    )
    wishes = Wishes()
    signals = _listen(wishes, instance)
    try:
        if not await _unless(wishes.stop, instance.start()):
            screen.note("Interrupted; everything that had started was stopped")
            return INTERRUPTED
        screen.lines(summary(instance))
        await screen.watch(instance, wishes.stop)
        return await _end(instance, wishes, screen)
    finally:
        await instance.stop(retire=False, quickly=True)
        for number in signals:
            asyncio.get_running_loop().remove_signal_handler(number)


async def _end(instance: Instance, wishes: Wishes, screen: Screen) -> int:
    left: list[str] = []

    async def retire() -> None:
        left.extend(await instance.retire(screen.leaving))

    screen.note("Stopping: local nodes drain and leave first (Ctrl-C again ends at once)")
    why = ""
    try:
        finished = await _unless(wishes.hurry, retire())
    except SecbeatError as error:
        finished, why = True, error.why
    screen.note("Stopping the services")
    await instance.stop(retire=False, quickly=not finished)
    if not finished:
        screen.note("Ended at once: local nodes go on running; the next 'secbeat up' on this state takes them over")
        return INTERRUPTED
    if left or why:
        raise SecbeatError("POOLS_NOT_EMPTY", why=why or f"still there: {', '.join(left)}")
    screen.note("Stopped")
    return 0


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work unless the event comes first; True if it was done. What the work raises is raised."""
    doing = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
            return True
        doing.cancel()
        with suppress(asyncio.CancelledError):
            await doing
        return False
    finally:
        waiting.cancel()
        doing.cancel()


def _listen(wishes: Wishes, instance: Instance) -> list[signal.Signals]:
    loop = asyncio.get_running_loop()
    handled = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

    def hang_up() -> None:
        # A closed terminal is a wish to end; a supervisor's SIGHUP asks to read the configuration again.
        if sys.stdin is not None and sys.stdin.isatty():
            wishes.ask()
        else:
            instance.send(signal.SIGHUP)

    for number in handled:
        loop.add_signal_handler(number, hang_up if number is signal.SIGHUP else wishes.ask)
    return handled
