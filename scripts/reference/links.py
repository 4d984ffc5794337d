"""Every link that leaves the documentation. They are listed, not fetched: a build must work without a network."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from scripts.reference.tables import table

_LINK = re.compile(r"\]\((https?://[^)\s]+)\)|<(https?://[^>\s]+)>")
_HEAD = """# External links

Links that leave this documentation, with the pages that have them. No build fetches them.

"""


def found(root: Path) -> dict[str, list[str]]:
    """Address → pages, in alphabetical order; code is not looked at."""
    pages = defaultdict(set)
    for path in sources(root):
        prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for match in _LINK.finditer(prose):
            pages[match[1] or match[2]].add(str(path.relative_to(root)))
    return {address: sorted(pages[address]) for address in sorted(pages)}


def sources(root: Path) -> list[Path]:
    """The pages that people write or read; the list of links itself is none of them."""
    pages = [path for path in (root / "docs").rglob("*.md") if "_build" not in path.parts and path.name != "links.md"]
    return sorted([*root.glob("*.md"), *pages])


def page(root: Path) -> str:
    """The page."""
    return _HEAD + table(["address", "pages"], ((f"<{a}>", ", ".join(p)) for a, p in found(root).items()))
