"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a cell may hold anything but a line end, which becomes a space. No rows: no table."""
    lines = [_row(cells) for cells in rows]
    return "\n".join([_row(heading), _row(["---"] * len(heading)), *lines]) + "\n" if lines else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def text(sentence: str) -> str:
    """Prose from the program as Markdown: double backquotes become single ones, a placeholder like <id> is no HTML."""
    return " ".join(sentence.split()).replace("``", "`").replace("<", "&lt;").replace("*", "\\*")
