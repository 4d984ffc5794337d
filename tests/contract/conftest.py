"""Which test covers which row, and the programs of both sides.

``@pytest.mark.row("4.register.request.from-node")`` names the one row that a test covers; on a ``pytest.param`` it
names the row of that case. An unknown row ends the collection; a row without a test fails ``test_rows.py``.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import defaultdict
from pathlib import Path

import pytest

from secbeat.testing import FakeClock
from tests.contract.original.programs import Management
from tests.contract.ours.fleet import OurFleet
from tests.contract.ours.node import OurNode
from tests.contract.ours.provisioner import OurProvisioner
from tests.contract.rows import BY_ID

HERE = Path(__file__).parent
COVERED: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()
WHOLE: pytest.StashKey[bool] = pytest.StashKey()

# pytest-asyncio would else ask Python 3.11 for a loop that nobody closes.
asyncio.set_event_loop(None)


def pytest_configure(config):
    config.addinivalue_line("markers", "row(id): the contract row (tests/contract/rows.md) that a test covers")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Before -k and -m take tests away: what is collected, and whether that is everything."""
    covered = defaultdict(list)
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        names = [mark.args[0] for mark in item.iter_markers("row")]
        unknown = [name for name in names if name not in BY_ID]
        if unknown:
            raise pytest.UsageError(f"{item.nodeid}: there is no contract row {unknown[0]!r}")
        if len(names) > 1:
            raise pytest.UsageError(f"{item.nodeid} names {len(names)} contract rows: one test covers one row")
        for name in names:
            covered[name].append(item.nodeid)
            item.user_properties.append(("row", name))
    config.stash[COVERED] = dict(covered)
    files = set(HERE.rglob("test_*.py"))
    config.stash[WHOLE] = files <= {item.path for item in ours} and not any("::" in arg for arg in config.args)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def fleet():
    """Starts our orchestrator, core and HTTP API, in virtual time; keyword arguments are keys of [orchestrator]."""
    made = []

    async def start(**orchestrator):
        made.append(await OurFleet.start(**orchestrator))
        return made[-1]

    yield start
    for one in made:
        await one.close()


@pytest.fixture
async def node(tmp_path, clock):
    """Starts our node in the original's form, in virtual time."""
    made = []

    async def start(**options):
        made.append(await OurNode.start(tmp_path, clock, **options))
        return made[-1]

    yield start
    for one in made:
        await one.close()


@pytest.fixture
async def provisioner(tmp_path):
    """Starts our provisioner's HTTP service on stores in memory."""
    made = []

    async def start(**settings):
        made.append(await OurProvisioner.start(tmp_path, **settings))
        return made[-1]

    yield start
    for one in made:
        await one.close()


@pytest.fixture
async def original_node():
    """Starts the management port of an original's node, 9999, at a loopback address of its own: (server, address)."""
    made, numbers = [], itertools.count(1)

    async def start():
        address = f"127.{100 + os.getpid() // 250 % 100}.{os.getpid() % 250}.{next(numbers)}"
        made.append(await Management().start(address, 9999))
        return made[-1], address

    yield start
    for one in made:
        await one.close()
