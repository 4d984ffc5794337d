"""The fleet as the orchestrator sees it: node records, heartbeats, liveness."""

from __future__ import annotations

from orchestrator.fleet.lifecycle import IllegalTransition, advance
from orchestrator.fleet.node import Node
from orchestrator.fleet.registry import Registry, Signal, legacy_unit

__all__ = ["IllegalTransition", "Node", "Registry", "Signal", "advance", "legacy_unit"]
