"""The nodes in the order of their ids, for pages: sorted when a page is asked for, and nearly sorted already then."""

from __future__ import annotations

from collections.abc import Container


class Order:
    """Ids, sorted on demand. Coming and going cost next to nothing, a page after them one pass over the fleet."""

    def __init__(self) -> None:
        self._sorted: list[str] = []
        self._came: list[str] = []
        self._gone = False

    def came(self, node_id: str) -> None:
        """There is one more."""
        self._came.append(node_id)

    def went(self) -> None:
        """There is one less."""
        self._gone = True

    def current(self, present: Container[str]) -> list[str]:
        """All of ``present``, sorted; to be read at once, not to be kept."""
        if self._gone:
            # One that went and came again stands twice.
            kept = {node_id for node_id in (*self._sorted, *self._came) if node_id in present}
            self._sorted, self._came, self._gone = sorted(kept), [], False
        elif self._came:
            self._sorted += self._came
            self._sorted.sort()
            self._came = []
        return self._sorted
