"""A process's life: signals, named tasks, orderly ends. Every service's ``main`` runs inside :func:`run`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from secbeat import logs
from secbeat.errors import SecbeatError

log = logging.getLogger("service")


class Stop:
    """The wish to end. Signals only set it; nothing is cancelled by a signal itself."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""
        self.failed: BaseException | None = None
        self.reload = asyncio.Event()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self, reason: str) -> None:
        """Ask for the end; the first reason is kept."""
        if not self.requested:
            self.reason = reason
            self._event.set()

    async def wait(self) -> None:
        """Until the end is asked for."""
        await self._event.wait()

    async def wait_for(self, seconds: float) -> bool:
        """Wait at most ``seconds``; True if the end was asked for."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Tasks:
    """Named background tasks of a service.

    An eternal task that ends, by an error or not, is a defect: it is logged and stops the service, because a service
    that half works at 3 a.m. is worse than one that its supervisor restarts.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any], *, eternal: bool = True) -> asyncio.Task[Any]:
        """Start a task; the returned one may be awaited or cancelled by its owner."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, eternal=eternal))
        return task

    def _ended(self, task: asyncio.Task[Any], *, eternal: bool) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("Task %s failed: %s", task.get_name(), error, exc_info=error, extra={"action": "task_failed"})
        elif eternal and not self._stop.requested:
            log.error("Task %s ended unexpectedly", task.get_name(), extra={"action": "task_ended"})
        if eternal and not self._stop.requested:
            self._stop.failed = error or RuntimeError(f"task {task.get_name()} ended")
            self._stop.request(f"task {task.get_name()} ended")

    async def close(self, timeout: float = 5.0) -> None:
        """Cancel what still runs and wait for it, at most ``timeout`` seconds."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            _, pending = await asyncio.wait(list(self._tasks), timeout=timeout)
            for task in pending:
                log.warning("Task %s does not end", task.get_name(), extra={"action": "task_stuck"})


def run(name: str, main: Callable[[Stop], Awaitable[int]], *, log_file: Path | None = None) -> int:
    """Run a service's ``main`` until it returns; the process's exit code.

    SIGTERM and SIGINT ask it to stop, a second SIGINT ends it at once (130), SIGHUP sets ``stop.reload``. A
    SecbeatError ends it with its lines on standard error and its exit code, without a traceback.
    """
    try:
        logs.configure(name, log_file=log_file)
        return asyncio.run(_supervised(name, main))
    except SecbeatError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return error.exit_code
    except ValidationError as error:
        # Without the input: it may hold a secret.
        for one in error.errors(include_url=False, include_context=False, include_input=False):
            print(f"error: {error.title}: {'.'.join(map(str, one['loc'])) or '-'}: {one['msg']}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


async def _supervised(name: str, main: Callable[[Stop], Awaitable[int]]) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def on_signal(number: signal.Signals) -> None:
        if number is signal.SIGHUP:
            stop.reload.set()
        elif number is signal.SIGINT and stop.requested:
            loop.remove_signal_handler(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        else:
            stop.request(signal.Signals(number).name)

    for number in handled:
        loop.add_signal_handler(number, on_signal, number)
    try:
        log.info("%s starts", name, extra={"action": "start"})
        code = await main(stop)
        log.info("%s stopped (%s)", name, stop.reason or "done", extra={"action": "stopped"})
        return code if stop.failed is None else code or 1
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
