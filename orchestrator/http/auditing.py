"""The audit stands with what the services share; here it is known by its old place."""

from __future__ import annotations

from secbeat.auditing import Audit

__all__ = ["Audit"]
