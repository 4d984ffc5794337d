from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from secbeat.testing import FakeClock
from secbeat.up import guarding
from secbeat.up.children import Backoff, Child, lines, sentence


def child(code, heard=None):
    return Child(
        "thing",
        [sys.executable, "-uc", textwrap.dedent(code)],
        dict(os.environ),
        ([] if heard is None else heard).append,
    )


async def until(condition, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process is what is waited for
            await asyncio.sleep(0.01)


async def test_a_childs_lines_are_heard_and_its_end_is_told():
    heard = []
    thing = child("print('one'); import sys; print('two', file=sys.stderr); sys.exit(3)", heard)
    await thing.start()
    assert await thing.wait() == 3
    assert heard == ["one", "two"]
    assert thing.pid is None
    await thing.stop(1)


async def test_last_words_are_the_error_for_people():
    thing = child("print('{}'); print('error[X]: it broke'); print('  why:  y')")
    await thing.start()
    await thing.wait()
    assert thing.last_words() == ["error[X]: it broke", "  why:  y"]
    await thing.stop(1)


async def test_a_child_that_ignores_the_request_is_killed():
    heard = []
    thing = child("import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)", heard)
    await thing.start()
    await until(lambda: heard)
    pid = thing.pid
    await thing.stop(0.05)
    assert not psutil.pid_exists(pid)


async def test_ctrl_c_in_the_terminal_does_not_reach_a_child():
    thing = child("import time; time.sleep(600)")
    await thing.start()
    assert os.getsid(thing.pid) == thing.pid
    await thing.stop(5)


def test_a_child_is_asked_to_end_when_its_parent_is_killed(tmp_path):
    code = f"""
        import asyncio, os, sys
        from secbeat.up.children import Child
        async def main():
            child = Child("x", [sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), print)
            await child.start()
            open({str(tmp_path / "pid")!r}, "w").write(f"{{child.pid}}\\n")
            await asyncio.sleep(600)
        asyncio.run(main())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    deadline = time.monotonic() + 30
    pid_file = tmp_path / "pid"
    while not (pid_file.exists() and pid_file.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.01)
    orphan = psutil.Process(int(pid_file.read_text()))
    parent.kill()
    parent.wait()
    psutil.wait_procs([orphan], timeout=20)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


async def test_long_lines_and_torn_ones_arrive():
    stream = asyncio.StreamReader()
    stream.feed_data(b"a" * 200_000 + b"\nshort\nno end")
    stream.feed_eof()
    found = [line async for line in lines(stream)]
    assert [len(line) for line in found[:1]] == [64 * 1024]
    assert found[-2:] == ["short", "no end"]


@pytest.mark.parametrize(
    ("line", "said"),
    [('{"level": "ERROR", "message": "m"}', "ERROR m"), ("plain", "plain"), ("[1]", "[1]"), ('{"a": 1}', '{"a": 1}')],
)
def test_log_lines_are_shortened_for_people(line, said):
    assert sentence(line) == said


async def test_waits_before_a_restart_grow_and_shrink_again():
    clock = FakeClock()
    backoff = Backoff(clock)
    waits = []
    for _ in range(7):
        backoff.started()
        waits.append(backoff.seconds())
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    backoff.started()
    await clock.advance(60)
    assert backoff.seconds() == 1


async def test_a_child_that_dies_is_started_again_and_it_is_said():
    said = []
    thing = child("import time; time.sleep(600)")
    await thing.start()
    guard = asyncio.create_task(guarding.keep(thing, lambda kind, text: said.append((kind, text))))
    first = thing.pid
    thing.send(signal.SIGKILL)
    await until(lambda: len(said) == 2)
    assert [kind for kind, _ in said] == ["service.died", "service.restarted"]
    assert "signal 9" in said[0][1]
    assert thing.pid not in (None, first)
    guard.cancel()
    await asyncio.gather(guard, return_exceptions=True)
    await thing.stop(5)
