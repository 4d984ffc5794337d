"""`secbeat demo`: the whole loop on a private instance, with real load.

Nothing is simulated: the instance is `secbeat up`'s, the machines are made by ansible-runner, the clients send real
requests through the nodes, and each step is observed from outside (process table, heartbeats, answers), not announced.
"""

from __future__ import annotations

from secbeat.demo.running import run

__all__ = ["run"]
