"""The resource manager: ``summarise`` sees, ``decide`` says, and nothing here acts."""

from __future__ import annotations

from orchestrator.scaling.decide import acts, decide, victims
from orchestrator.scaling.history import History
from orchestrator.scaling.log import DecisionLog
from orchestrator.scaling.summary import allowed_silence, summarise

__all__ = [
    "DecisionLog",
    "History",
    "acts",
    "allowed_silence",
    "decide",
    "summarise",
    "victims",
]
