"""The end of an instance's local nodes: pools to zero by operations, and the wait until nothing is left."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from secbeat.errors import UnreachableError
from secbeat.settings import Settings
from secbeat.up.api import Api

# What a teardown may take beyond the drain before we stop believing in it.
_TEARDOWN_SECONDS = 60.0
_INSIST_SECONDS = 15.0
_POLL_SECONDS = 0.1

T = TypeVar("T")
Progress = Callable[[int, int], None]


async def retire(
    api: Api,
    settings: Settings,
    on_progress: Progress | None = None,
    on_observed: Callable[[str], None] | None = None,
) -> list[str]:
    """Take the pools with machines on this computer to zero, and wait until their nodes are gone.

    A pool in mode ``observe`` is left alone: nothing may act on it, so its nodes would be waited for in vain.

    Args:
        api: the orchestrator's.
        settings: say which blueprints are local.
        on_progress: called with the nodes and the open operations that are left, when they change.
        on_observed: called with the name of each pool that is left alone.

    Returns:
        The nodes that are left once none has left for as long as a drain and a teardown may take.

    Raises:
        UnreachableError: the orchestrator does not answer, now or for that long.
    """
    modes = await _insist(lambda: _local_pools(api, settings))
    pools = {name for name, mode in modes.items() if mode != "observe"}
    for name in sorted(modes.keys() - pools):
        if on_observed is not None:
            on_observed(name)
    if not pools:
        return []
    await _insist(lambda: asyncio.gather(*(api.post(f"/api/v1/pools/{pool}/retire") for pool in pools)))
    drains = [pool.drain_deadline_seconds for name, pool in settings.pools.items() if name in pools]
    return await _until_gone(api, pools, _TEARDOWN_SECONDS + max(drains, default=60.0), on_progress)


async def _until_gone(api: Api, pools: set[str], patience: float, on_progress: Progress | None) -> list[str]:
    seen: tuple[int, int] | None = None
    fewest = math.inf
    names: list[str] = []
    deadline = time.monotonic() + patience
    while True:
        try:
            nodes, operations = await remaining(api, pools)
        except UnreachableError:  # perhaps it is starting again right now
            if time.monotonic() > deadline:
                raise
        else:
            names = [str(node.get("name") or node["node_id"]) for node in nodes]
            if not nodes and not operations:
                return []
            if (len(nodes), operations) != seen:
                seen = (len(nodes), operations)
                if on_progress is not None:
                    on_progress(*seen)
            # Only fewer nodes are progress: ones that come back again and again must not keep us here for ever.
            if len(nodes) < fewest:
                fewest, deadline = len(nodes), time.monotonic() + patience
            if time.monotonic() > deadline:
                return names or [f"{operations} unfinished operations"]
        await asyncio.sleep(_POLL_SECONDS)


async def remaining(api: Api, pools: set[str]) -> tuple[list[dict[str, Any]], int]:
    """Nodes of the pools that are not gone, and the number of their operations that have not ended."""
    nodes = await api.items("/api/v1/nodes?all=1")
    operations = await api.items("/api/v1/operations?open=1")
    left = [node for node in nodes if node["pool"] in pools and node["state"] != "gone"]
    return left, sum(row["pool"] in pools for row in operations)


async def _local_pools(api: Api, settings: Settings) -> dict[str, str]:
    """Name → mode."""
    local = {name for name, blueprint in settings.blueprints.items() if blueprint.target == "local"}
    pools = await api.items("/api/v1/pools")
    return {str(pool["name"]): str(pool["mode"]) for pool in pools if pool["blueprint"] in local}


async def _insist(ask: Callable[[], Awaitable[T]]) -> T:
    deadline = time.monotonic() + _INSIST_SECONDS
    while True:
        with suppress(UnreachableError):
            return await ask()
        if time.monotonic() > deadline:
            return await ask()
        await asyncio.sleep(0.5)
