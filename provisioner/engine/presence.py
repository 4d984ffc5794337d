"""Whether anything of an earlier fork server still runs: a file that it and all its job processes hold locked.

The lock belongs to the open file that is passed on by fork, so the kernel lets it go when the last of them has ended,
by whatever death, and not before. Programs that a job starts do not inherit it; `marks` finds those.
"""

from __future__ import annotations

import asyncio
import fcntl
import time

MARK = "SECBEAT_FORK_SERVER"
_POLL_SECONDS = 0.02


async def taken(descriptor: int, seconds: float) -> bool:
    """Lock the open file for us and all who inherit it; False: others hold it for longer than ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return True
