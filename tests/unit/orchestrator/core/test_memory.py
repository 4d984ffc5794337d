"""The collector's settings change the process, so each test has one of its own."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc
from orchestrator.memory import settle

class Held:
    pass

def cycle():
    one = Held()
    one.itself = one

held = [Held() for _ in range(1000)]
cycle()
settle()
young = sum(isinstance(one, Held) for one in gc.get_objects())
assert young == 0, f"{young} objects are looked at again"
assert gc.get_freeze_count() > 1000
assert gc.isenabled() and gc.get_threshold()[0] >= 10_000
cycle()
assert gc.collect() >= 1, "new garbage is not found"
"""

_LOADED = """
import ctypes
from orchestrator.memory import settle

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if not hasattr(ctypes.CDLL(None), "malloc_trim"):
    raise SystemExit
read = [bytes(4000) for _ in range(10_000)]
held = read[::50]
del read
before = resident()
settle()
assert before - resident() > 15e6, (before, resident())
"""


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_loaded_is_not_looked_at_again_and_new_garbage_is_still_found():
    run(_PROGRAM)


def test_what_loading_took_goes_back_to_the_system():
    run(_LOADED)
