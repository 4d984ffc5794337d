"""``python -m secbeat.catalogue.reference``: the page of all codes, in Markdown, for the documentation."""

from __future__ import annotations

import sys

from secbeat.catalogue import ALL, Entry

_HEAD = """# Error and reason codes

What `secbeat explain CODE` prints. Errors end a command or a request; reasons stand in decisions and operations.
Codes are never renamed and never reused.
"""


def anchor(code: str) -> str:
    """Where the documentation explains ``code``: page and anchor, as they are built."""
    return f"reference/codes.html#{code.lower().replace('_', '-')}"


def page() -> str:
    """The page: errors first, then reasons, each in alphabetical order."""
    parts = [_HEAD]
    for kind, heading in (("error", "Errors"), ("reason", "Reasons")):
        entries = sorted((entry for entry in ALL.values() if entry.kind == kind), key=lambda entry: entry.code)
        parts.append(f"\n## {heading}\n")
        parts.extend(_section(entry) for entry in entries)
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    # A placeholder like <op_id> is text, not HTML.
    cause, remedy = (text.replace("<", "&lt;") for text in (entry.cause, entry.remedy))
    return f"### {entry.code}\n\n**{entry.title}.** {cause}\n\n*What to do:* {remedy}\n"


if __name__ == "__main__":
    sys.stdout.write(page())
