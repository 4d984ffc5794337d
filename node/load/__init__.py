"""How busy the node is: readings of the machine or of its own processes, and differences between two of them."""

from __future__ import annotations

from node.load.sampler import Sample, Sampler

__all__ = ["Sample", "Sampler"]
