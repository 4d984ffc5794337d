"""Catalogue entries."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

ENTRIES: tuple[Entry, ...] = ()
