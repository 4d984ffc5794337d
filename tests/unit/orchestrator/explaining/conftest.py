"""The pool, the snapshots and the ids of the resource manager's tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

# Test folders are no packages, so the fixtures are loaded by their path.
_NAME = "secbeat_scaling_fixtures"
if _NAME not in sys.modules:
    _spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).parents[1] / "scaling" / "conftest.py")
    sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_NAME])
_fixtures = sys.modules[_NAME]
pool, seen_fixture, uid_fixture = _fixtures.pool, _fixtures.seen_fixture, _fixtures.uid_fixture
