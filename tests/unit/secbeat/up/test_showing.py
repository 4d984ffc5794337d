"""The live view: what it shows fits the terminal; on a real pty it repaints in place, resizes, and q ends it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from datetime import UTC, datetime

import pytest
from rich.console import Console

from secbeat.up.view import KEYS, Seen, draw

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
POOL = {
    "name": "web", "min": 1, "max": 9, "capacity": 4, "active": 2, "pending": 1, "draining": 1, "failed": 0,
    "desired": 5, "cpu": 0.42, "pause": None, "override": None, "retired": False, "breaker": {"open_since": None},
    "decision": {"sentence": "CPU 91% is over 80%"},
}  # fmt: skip
OPERATION = {
    "op_id": "01JD2K000000000000000000A1", "pool": "web", "action": "create", "state": "running", "error": None,
    "stage": "Start the node", "node_id": "1f9c2a7e-0000-4000-8000-000000000001",
    "created_at": "2026-01-31T02:58:30.000Z",
}  # fmt: skip
EVENT = {"at": "2026-01-31T02:59:00.000Z", "sentence": "node web-1 joined"}


def shown(seen, *, width=120, height=30):
    out = io.StringIO()
    Console(file=out, width=width, height=height, highlight=False).print(draw(seen, NOW, height, width))
    return out.getvalue()


def test_sizes_decision_work_and_events_are_shown():
    text = shown(Seen([POOL], [OPERATION], [EVENT]))
    assert re.search(r"web +5 +4 +2 +1 +1 +1-9 +42% +CPU 91% is over 80%", text)
    assert "create running: Start the node" in text
    assert "1m30s" in text.replace(" ", "")
    assert "node web-1 joined" in text
    assert KEYS in text


def test_what_holds_a_pool_and_why_nothing_answers_are_said():
    held = dict(POOL, pause={"until": None}, breaker={"open_since": "x"})
    text = shown(Seen([held], trouble="connection refused"))
    assert "[pause, breaker] CPU 91%" in text
    assert "does not answer: connection refused" in text
    assert "No operation is under way" in text


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (40, 10), (200, 12)])
def test_it_fits_the_terminal_however_much_there_is(width, height):
    pools = [dict(POOL, name=f"pool-{number}") for number in range(50)]
    text = shown(
        Seen(pools, [OPERATION] * 50, [EVENT] * 50, happenings=("02:59:30  x",) * 9), width=width, height=height
    )
    lines = text.splitlines()
    assert len(lines) <= height + 2
    assert max(map(len, lines)) <= width
    assert "more pools: secbeat pools"[: width - 10] in text


def test_a_broken_pool_comes_first_and_control_characters_do_not_reach_the_terminal():
    broken = dict(POOL, name="zeta", failed=1, decision={"sentence": "\x1b[2Jred"})
    text = shown(Seen([POOL, broken]))
    assert text.index("zeta") < text.index("web")
    assert "\x1b" not in text


_PROGRAM = """
import asyncio, sys
from types import SimpleNamespace
from secbeat.up.showing import Screen
POOL, OPERATION, EVENT = {data!r}
class Api:
    count = 0
    async def items(self, path):
        self.count += 1
        return [dict(POOL, desired=self.count)] if "pools" in path else [OPERATION]
    async def events(self, newest):
        return [EVENT]
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(2, stop.set)
    await Screen().watch(SimpleNamespace(api=Api()), stop)
    print("watched")
asyncio.run(main())
"""


class Terminal:
    """A process with a terminal of its own, of a size."""

    def __init__(self, *, rows=24, columns=100, **variables):
        self.ours, theirs = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "LINES", "COLUMNS"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(data=(POOL, OPERATION, EVENT))],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=kept | {"TERM": "xterm-256color"} | variables,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
        )  # fmt: skip
        os.set_blocking(self.ours, False)
        self.text = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, wanted, seconds=20):
        end = time.monotonic() + seconds
        while not wanted(self.text):
            assert time.monotonic() < end, self.text
            try:
                self.text += os.read(self.ours, 65536).decode(errors="replace")
            except (BlockingIOError, OSError):
                time.sleep(0.02)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal():
    made = []

    def start(**options):
        made.append(Terminal(**options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_on_a_terminal_it_repaints_in_place_and_q_ends_it_with_the_terminal_as_it_was(terminal):
    one = terminal()
    one.until(lambda text: text.count("last decision") >= 2)
    assert "\x1b[2J" not in one.text, "the screen is never cleared: that flickers"
    assert "\x1b[1A" in one.text
    os.write(one.ours, b"xq")
    one.until(lambda text: "watched" in text)
    assert one.process.wait(10) == 0
    assert termios.tcgetattr(one.theirs) == one.before
    assert "\x1b[?25h" in one.text, "the cursor is back"


def test_a_resize_is_drawn_at_once_and_ctrl_c_is_a_signal(terminal):
    one = terminal(NO_COLOR="1")
    one.until(lambda text: "last decision" in text)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", one.text), "NO_COLOR"
    one.text = ""
    one.resize(20, 50)
    one.until(lambda text: text.count("healthy") >= 2 and "pending" not in text.rpartition("healthy")[0][-80:])
    assert "web" in one.text
    widest = max(len(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)) for line in one.text.splitlines())
    assert widest <= 100
    os.write(one.ours, b"\x03")
    one.until(lambda text: "watched" in text)
    assert one.process.wait(10) in {0, -signal.SIGINT}
