"""A service that cannot start: its own error becomes ours, once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from secbeat.errors import ConfigError, SecbeatError
from secbeat.up.dying import died, is_error_line

PRINTED = ConfigError("NATS_NO_JETSTREAM", why="the server at nats://a has no JetStream").lines()


def child(*words):
    return SimpleNamespace(name="orchestrator", last_words=lambda: list(words))


def test_its_error_is_told_with_its_name_code_and_remedy():
    error = died(child(*PRINTED), 2)
    assert isinstance(error, ConfigError)
    assert error.code == "NATS_NO_JETSTREAM"
    assert error.why == "orchestrator: the server at nats://a has no JetStream"
    assert error.lines()[2] == PRINTED[2]


@pytest.mark.parametrize("words", [["error[X]: it broke", "  why:  y", "  fix:  z"], ["Killed", "by"], []])
def test_anything_else_are_its_last_words(words):
    error = died(child(*words), -9)
    assert (type(error), error.code) == (SecbeatError, "SERVICE_DIED")
    assert error.why.startswith("orchestrator ended (signal 9): ")
    assert "\n" not in error.why
    for word in words:
        assert word.strip() in error.why


def test_the_lines_of_an_error_are_known_from_log_lines():
    assert all(is_error_line(line) for line in PRINTED)
    assert not is_error_line('{"level": "ERROR", "message": "error[X]: y"}')
    assert not is_error_line("error: Settings: nats.url: wrong")
