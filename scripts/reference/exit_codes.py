"""The exit codes, as ``secbeat help exit-codes`` has them."""

from __future__ import annotations

from scripts.reference.tables import table, text
from secbeat.cli.helping import EXIT_CODES

_HEAD = """# Exit codes

Every `secbeat` command ends with one of these. A script can tell "no" from "not now" from "not there" without reading
a sentence; the sentence, with a code for [`secbeat explain`](codes.md), is on standard error.

"""
_TAIL = """
`secbeat demo` ends with 1 if one request failed or one thing is left behind; `secbeat doctor` with 1 if it found
something that must be mended; `secbeat up` with 1 if a local node could not be taken down. With `--wait`, the code
follows how the work ended: 0 only if it succeeded.
"""


def page() -> str:
    """The page."""
    return _HEAD + table(["code", "meaning"], ((str(code), text(what)) for code, what in EXIT_CODES.items())) + _TAIL
