"""What acceptance tests share: a place to run the real command in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.support import Place


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    """Home, state directory and working directory of this test; its processes end with it."""
    made = Place(tmp_path)
    yield made
    made.close()
