from __future__ import annotations

import asyncio

from tests.acceptance.crashes.conftest import make_fleet

__all__ = ["make_fleet"]

# pytest-asyncio would else ask Python 3.11 for a loop that nobody closes.
asyncio.set_event_loop(None)
