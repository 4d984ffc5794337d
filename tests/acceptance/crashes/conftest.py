from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.acceptance.crashes.fleet import Fleet

# pytest-asyncio would else ask Python 3.11 for a loop that nobody closes.
asyncio.set_event_loop(None)


@pytest.fixture
async def make_fleet(tmp_path) -> AsyncIterator[Callable[..., Fleet]]:
    """Builds fleets; whatever becomes of the test, they end with it."""
    made: list[Fleet] = []

    def make(**options) -> Fleet:
        home = tmp_path / str(len(made))
        home.mkdir()
        made.append(Fleet.build(home, **options))
        return made[-1]

    yield make
    for fleet in made:
        await fleet.close()
