"""``secbeat doctor``: what is missing on this machine, each finding with its remedy, the verdict last."""

from __future__ import annotations

from secbeat.cli.doctor.command import doctor

__all__ = ["doctor"]
