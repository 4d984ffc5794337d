"""``secbeat help``: topics, commands, and a hint for a typing error."""

from __future__ import annotations

import json

from secbeat import errors
from secbeat.cli.helping import EXIT_CODES


def test_the_exit_codes_are_a_topic_and_those_of_the_errors(run):
    rows = json.loads(run("help", "exit-codes", "-o", "json").out)
    assert [row["code"] for row in rows] == [0, 1, 2, 3, 4, 5, 6, 130]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {kind.exit_code for kind in kinds} | {0, 130} == set(EXIT_CODES)
    assert "SECBEAT_URL" in run("help", "environment").out


def test_a_commands_help_is_what_the_command_itself_says(run):
    assert run("help", "scale").out.split() == run("scale", "--help").out.split()


def test_a_topic_that_is_none_suggests_near_ones(run):
    result = run("help", "exit-code")
    assert (result.code, result.out) == (2, "")
    assert "Did you mean: exit-codes" in result.err


def test_a_command_that_is_mistyped_is_suggested_and_not_run(run, stub):
    result = run("scael", "web", "3", "--url", stub.url)
    assert result.code == 2
    assert "Did you mean 'scale'?" in result.err
    assert stub.requests == []
