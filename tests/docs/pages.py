"""The documentation as data: its pages, their fenced blocks, and the steps that a reader would follow.

A page that is run as it stands uses these signs, all of them invisible or plain words to a reader:

- "Write `NAME`:" before a block: the block is that file.
- A ``text`` block right after a ``sh`` block: what the commands print, in this order; ``…`` stands for anything.
- ``<!-- ci: stays -->``: the commands stay in their terminal; the ``text`` block is what is waited for.
- ``<!-- ci: again, until it is so -->``: repeated until it prints what the page says.
- ``<!-- ci: interrupt -->`` before a ``text`` block: Ctrl-C in the terminal that stays.
- ``<!-- ci: replaced, WHY -->``: not run or written as it stands; the test says by what it is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = {"codes.md", "configuration.md", "metrics.md", "logs.md", "links.md", "states.md"}
_FENCE = re.compile(r"( *)```+(\S*)")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``before`` is all that stands between it and the block ahead of it."""

    page: Path
    line: int
    language: str
    text: str
    before: str

    @property
    def file(self) -> str | None:
        """The file that the page says this is."""
        named = re.search(r"Write `([^`]+)`:\s*(<!--[^>]*-->\s*)?$", self.before)
        return named[1] if named else None

    @property
    def sign(self) -> str:
        """What a ``ci:`` comment says of it."""
        said = re.search(r"<!-- ci: (\w+)[^>]*-->\s*$", self.before)
        return said[1] if said else ""

    @property
    def follows(self) -> bool:
        """Whether nothing stands between this block and the one ahead of it."""
        return not self.before.strip()

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def pages() -> tuple[Path, ...]:
    """Every page that a person writes, and the generated ones that have examples."""
    found = [
        path
        for path in (ROOT / "docs").rglob("*.md")
        if not {"_build", "evidence"} & set(path.parts) and path.name not in GENERATED
    ]
    return tuple(sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *found]))


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, without the indentation that a list gives them."""
    found: list[Block] = []
    before: list[str] = []
    begun: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if begun is None and fence is not None:
            begun, lines = (number, fence[1], fence[2]), []
        elif begun is not None and fence is not None and not fence[2]:
            start, indent, language = begun
            text = "".join(one.removeprefix(indent) + "\n" for one in lines)
            found.append(Block(page, start, language, text, "\n".join(before) + "\n"))
            begun, before = None, []
        else:
            (before if begun is None else lines).append(line)
    return tuple(found)


@cache
def all_blocks(*languages: str) -> tuple[Block, ...]:
    """The blocks of all pages in these languages; none named: all."""
    return tuple(block for page in pages() for block in blocks(page) if not languages or block.language in languages)


def commands(block: Block) -> Iterator[str]:
    """The command lines of a shell block: continued lines joined, comments and here-documents left out."""
    text = re.sub(r"\s*\\\n\s*", " ", block.text)
    text = re.sub(r"<<'?(\w+)'?.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        if (words := re.sub(r"(^|\s)#.*", "", line).strip()) and not words.startswith("$ "):
            yield words


def like(expected: str, printed: str) -> str | None:
    """The first line of ``expected`` that is not among the printed ones in order; None: all are. ``…`` is anything."""
    rest = printed.splitlines()
    for line in filter(str.strip, expected.splitlines()):
        pattern = r"\s+".join(re.escape(word).replace("…", ".*?") for word in line.split())
        pattern = pattern.replace(r"\s+.*?", r".*?").replace(r".*?\s+", r".*?")
        for number, seen in enumerate(rest):
            if re.fullmatch(rf"\s*{pattern}\s*", seen):
                rest = rest[number + 1 :]
                break
        else:
            return line
    return None
