"""The answers of ``secbeat why``: the sentence behind a decision, the trouble behind the sentence, what to do."""

from __future__ import annotations

from orchestrator.explaining.node import Load, why_node
from orchestrator.explaining.pool import why_pool, why_pool_then
from orchestrator.explaining.remedies import Situation

__all__ = ["Load", "Situation", "why_node", "why_pool", "why_pool_then"]
