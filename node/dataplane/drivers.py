"""The choice of a driver; what a driver needs is imported only when it is chosen."""

from __future__ import annotations

from pathlib import Path

from node.dataplane import DataPlane
from secbeat.settings import NodeSettings


def make(settings: NodeSettings, state_dir: Path, *, longest_drain: float) -> DataPlane:
    """The data plane that the settings name.

    Args:
        longest_drain: seconds; a proxy of its own process ends a drain after so long even without the agent.
    """
    if settings.driver == "haproxy":
        from node.dataplane.haproxy import HaproxyPlane  # noqa: PLC0415 - with jinja2, for those who use it

        return HaproxyPlane(settings, state_dir, hard_stop_seconds=longest_drain)
    from node.dataplane.builtin import BuiltinPlane  # noqa: PLC0415 - a node with HAProxy has no use for it

    return BuiltinPlane(settings, state_dir)
