"""The event loop of these tests."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(scope="session", autouse=True)
def _loop_of_the_main_thread():
    """One loop for pytest-asyncio to put back after each test: asked on 3.11 it makes one, and never closes it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
