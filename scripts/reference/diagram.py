"""A state diagram as an inline SVG: boxes on a grid, arrows between them; no program, no font, no network needed.

Where a box stands is chosen by hand (that is what makes a diagram readable), which arrows there are is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from html import escape

Cell = tuple[int, int]  # column, row
Arrow = tuple[str, str]

_WIDE, _HIGH, _GAP_X, _GAP_Y, _MARGIN = 104, 32, 40, 44, 12


def svg(title: str, cells: Mapping[str, Cell], arrows: Iterable[Arrow], *, ends: Collection[str]) -> str:
    """The diagram.

    Args:
        title: for those who do not see it.
        cells: where each state stands.
        arrows: from, to.
        ends: states that are drawn as an end.

    Raises:
        KeyError: an arrow from or to a state that stands nowhere.
    """
    columns, rows = (1 + max(cell[axis] for cell in cells.values()) for axis in (0, 1))
    width = columns * (_WIDE + _GAP_X) - _GAP_X + 2 * _MARGIN
    height = rows * (_HIGH + _GAP_Y) - _GAP_Y + 2 * _MARGIN + _GAP_Y  # room for arcs above the first row
    marker = "".join(filter(str.isalnum, title))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="inherit" '
            f'style="max-width:{width}px;width:100%" font-size="12" fill="none" stroke="currentColor">'
        ),
        f"<title>{escape(title)}</title>",
        (
            f'<marker id="{marker}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="currentColor" stroke="none"/></marker>'
        ),
    ]
    pairs = list(arrows)
    for start, end in pairs:
        path = _path(cells[start], cells[end], both=(end, start) in pairs)
        parts.append(f'<path d="{path}" marker-end="url(#{marker})"><title>{start} to {end}</title></path>')
    for state, cell in cells.items():
        x, y = _corner(cell)
        radius, stroke = (16, 2) if state in ends else (5, 1)
        parts.append(f'<rect x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="{radius}" stroke-width="{stroke}"/>')
        parts.append(
            f'<text x="{x + _WIDE / 2:g}" y="{y + 20}" text-anchor="middle" fill="currentColor" stroke="none">'
            f"{escape(state)}</text>"
        )
    return "\n".join([*parts, "</svg>"])


def _corner(cell: Cell) -> tuple[int, int]:
    return _MARGIN + cell[0] * (_WIDE + _GAP_X), _MARGIN + _GAP_Y + cell[1] * (_HIGH + _GAP_Y)


def _path(start: Cell, end: Cell, *, both: bool) -> str:
    (x1, y1), (x2, y2) = _corner(start), _corner(end)
    half = _HIGH // 2
    if start[1] == end[1]:
        return _along(x1, x2, y1, steps=end[0] - start[0], both=both)
    down = end[1] > start[1]
    side = 10 if both else 0
    side = side if down else -side
    if start[0] == end[0]:
        x = x1 + _WIDE // 2 + side
        return f"M{x} {y1 + _HIGH if down else y1}L{x} {y2 if down else y2 + _HIGH}"
    right = end[0] > start[0]
    if down and right and end[0] - start[0] == 1 and end[1] - start[1] == 1:
        return f"M{x1 + _WIDE - 20} {y1 + _HIGH}L{x2} {y2 + half}"
    x = x1 + _WIDE // 2 + (24 if right else -24) + side
    arrival = x2 + _WIDE // 2 + (-24 if right else 24) + side
    leaves, arrives = (y1 + _HIGH, y2) if down else (y1, y2 + _HIGH)
    return f"M{x} {leaves}L{arrival} {arrives}"


def _along(x1: int, x2: int, y: int, *, steps: int, both: bool) -> str:
    """Within a row: straight to a neighbour, else in an arc above (forward) or below (back)."""
    middle = y + _HIGH // 2
    if abs(steps) == 1:
        middle += (-6 if steps > 0 else 6) if both else 0
        return f"M{x1 + _WIDE} {middle}L{x2} {middle}" if steps > 0 else f"M{x1} {middle}L{x2 + _WIDE} {middle}"
    start, end = x1 + _WIDE // 2, x2 + _WIDE // 2
    rise = min(_GAP_Y - 6, 10 * abs(steps))
    edge = y if steps > 0 else y + _HIGH
    bend = edge - rise if steps > 0 else edge + rise
    return f"M{start} {edge}C{start} {bend} {end} {bend} {end} {edge}"
