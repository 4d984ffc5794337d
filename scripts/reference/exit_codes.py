"""The exit codes, from the classes of errors that end a command with them."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.reference.tables import table, text
from secbeat import errors

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
    return _HEAD + table(["code", "meaning"], ((f"{code}", meaning) for code, meaning in sorted(meanings()))) + _TAIL


def meanings() -> Iterator[tuple[int, str]]:
    """Each exit code with what it means."""
    yield 0, "Done."
    yield errors.SecbeatError.exit_code, "Failed."
    for kind in errors.SecbeatError.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind.exit_code, text((kind.__doc__ or "").partition("\n\n")[0])
    yield 130, "Interrupted (Ctrl-C)."
