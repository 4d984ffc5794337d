"""The blocklist: blocked addresses with an end, kept across restarts, versioned, told to every node."""

from __future__ import annotations

from orchestrator.rules.blocklist import Blocklist, BlockRecord, canonical
from orchestrator.rules.keeping import Rules
from orchestrator.rules.protecting import Protected

__all__ = ["BlockRecord", "Blocklist", "Protected", "Rules", "canonical"]
