"""The driver ``builtin``: an aiohttp reverse proxy that needs no package beside Python's."""

from __future__ import annotations

from node.dataplane.builtin.plane import BuiltinPlane

__all__ = ["BuiltinPlane"]
