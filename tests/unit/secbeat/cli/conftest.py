"""A stub service, a clean environment, and the command run inside this process."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from secbeat.cli import main

# Test folders are no packages, so the helper is loaded by its path, once.
_NAME = "secbeat_cli_stub"
if _NAME not in sys.modules:
    _spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).with_name("stub.py"))
    sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_NAME])


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("SECBEAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SECBEAT_STATE", str(tmp_path / "state"))


@pytest.fixture
def stub():
    with sys.modules[_NAME].running() as service:
        yield service


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("stub-token\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def run(capsys):
    """Run the command here; fast, and what it prints is captured."""

    def call(*arguments: str) -> Ran:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call
