"""A reader with a machine of their own: follows a page as it stands, in real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.acceptance.guide.conftest import own_network, shared_network
from tests.acceptance.support import Place, Running, until
from tests.docs.pages import Block, blocks, like


class Reader(Place):
    """Follows pages."""

    def follow(self, page: Path, *, replaced: Mapping[str, str | None] | None = None) -> None:
        """Write the page's files and run its commands, in its order.

        Args:
            replaced: for each block that is marked as replaced, by its file's name or its first line: what is done
                in its place; None: nothing.
        """
        stays: Running | None = None
        following = [*blocks(page)[1:], None]
        for block, after in zip(blocks(page), following, strict=True):
            text: str | None = block.text
            if block.sign == "replaced":
                text = (replaced or {})[block.file or block.text.partition("\n")[0]]
            expected = after.text if after is not None and after.language == "text" and after.follows else ""
            if text is None:
                continue
            if block.file is not None:
                self.write(block.file, text, mode=0o644)
            elif block.language == "sh" and block.sign == "stays":
                stays = self.start(text)
                self._until_prints(stays, expected, block)
            elif block.language == "sh":
                self._run(block, text, expected)
            elif block.sign == "interrupt":
                assert stays is not None
                stays.interrupt()
                assert stays.ended(90) == 0, stays.said()
                end_group(stays)
                missing = like(block.text, stays.stdout + stays.stderr)
                assert missing is None, f"{block}: {missing!r} was not printed\n{stays.said()}"

    def _until_prints(self, stays: Running, expected: str, block: Block) -> None:
        def look() -> bool:
            assert stays.running, stays.said()
            return like(expected, stays.stdout) is None

        until(look, 60, f"{block} prints what the page says", diagnosis=stays.said)

    def _run(self, block: Block, text: str, expected: str) -> None:
        printed = ""

        def so() -> bool:
            nonlocal printed
            done = self.run(f"set -e\n{text}", seconds=120)
            assert done.code == 0, f"{block}\n{text}\n{done.stdout}\n{done.stderr}\n{self.said()}"
            printed = done.stdout
            return like(expected, printed) is None

        if block.sign == "again":
            until(so, 60, f"{block} prints what the page says", diagnosis=lambda: printed)
        elif not so():
            pytest.fail(f"{block}: {like(expected, printed)!r} was not printed\n{printed}")

    def close(self) -> None:
        super().close()
        for one in self.started:
            end_group(one)


def end_group(one: Running) -> None:
    """End what a terminal still runs in the background after its command has ended, as ``kill %1`` would."""
    with suppress(ProcessLookupError):
        os.killpg(one.pid, signal.SIGKILL)


@pytest.fixture
def reader(tmp_path) -> Iterator[Reader]:
    """A machine whose ports nobody else uses."""
    with ExitStack() as stack:
        try:
            words = stack.enter_context(own_network())
        except OSError:
            words = stack.enter_context(shared_network())
        made = Reader(tmp_path, words, {"TMPDIR": str(tmp_path)})
        stack.callback(made.close)
        yield made
