"""Shared by all tests."""

from __future__ import annotations

import asyncio

# Python 3.11 makes a loop for whoever asks for one before there is any. pytest-asyncio asks, keeps it aside and never
# closes it: some later test, not the guilty one, then fails with a ResourceWarning.
asyncio.set_event_loop(None)
