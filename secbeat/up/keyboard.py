"""One key at a time from the terminal, without its line editing; only where we are in the foreground."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call ``pressed`` with each key while the block runs; the terminal is afterwards as it was.

    Without a terminal of our own to read from (a pipe, a job in the background) nothing is read or changed. Ctrl-C
    stays a signal.
    """
    descriptor = _foreground()
    if descriptor is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        data = b""
        with suppress(OSError):
            data = os.read(descriptor, 64)
        if not data:
            loop.remove_reader(descriptor)
        for key in data.decode(errors="ignore"):
            pressed(key)

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSANOW)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _foreground() -> int | None:
    """Standard input if it is our terminal; whoever touches one from the background is stopped by the kernel."""
    try:
        descriptor = sys.stdin.fileno()
        return descriptor if os.tcgetpgrp(descriptor) == os.getpgrp() else None
    except (OSError, ValueError, AttributeError):
        return None
