"""The driver ``haproxy``: HAProxy forwards the traffic, the agent writes its configuration and drives it.

HAProxy runs as a process of its own that outlives a crash of the agent; the next agent adopts it.
"""

from __future__ import annotations

from node.dataplane.haproxy.plane import HaproxyPlane

__all__ = ["HaproxyPlane"]
