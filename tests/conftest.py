"""Shared by all tests."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, settings

# Python 3.11 makes a loop for whoever asks for one before there is any. pytest-asyncio asks, keeps it aside and never
# closes it: some later test, not the guilty one, then fails with a ResourceWarning.
asyncio.set_event_loop(None)

# How long one example takes says something about the other work of this machine, nothing about the code.
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")
# `make qualify` looks at many more examples than a developer wants to wait for.
settings.register_profile(
    "long", max_examples=5000, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
)
