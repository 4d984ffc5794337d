"""``why`` tells the sentence, the numbers and the clamps; ``explain`` works without any service."""

from __future__ import annotations

import json

import pytest

from secbeat import catalogue


def test_why_of_a_pool_has_sentence_numbers_clamps_and_fix(run, stub):
    out = run("why", "web", "--url", stub.url).out
    assert out.startswith("web: CPU 42% is within 30% to 80%\n")
    for part in (
        "WITHIN_LIMITS",
        "from 3 to 3",
        "2 active, 1 pending",
        "cpu 42%",
        "COOLDOWN: a scale-down waits 2m",
    ):
        assert part in out
    assert "secbeat resume web" in out


def test_why_of_a_node_says_what_keeps_it(run, stub):
    out = run("why", stub.NODE, "--url", stub.url).out
    assert "It serves" in out
    assert "kept by:   PROTECTED" in out


def test_why_at_a_time_asks_for_that_time(run, stub):
    assert run("why", "web", "--at", "2026-01-31T04:00:00+01:00", "--url", stub.url).code == 0
    assert stub.requests[-1][2] == {"at": "2026-01-31T03:00:00.000Z"}


def test_why_at_a_duration_is_so_long_ago(run, stub):
    from datetime import UTC, datetime

    run("why", "web", "--at", "15m", "--url", stub.url)
    asked = datetime.fromisoformat(stub.requests[-1][2]["at"])
    assert 890 <= (datetime.now(UTC) - asked).total_seconds() <= 960


def test_a_time_that_is_none_is_refused_before_anything_is_asked(run, stub):
    result = run("why", "web", "--at", "yesterday", "--url", stub.url)
    assert result.code == 2
    assert "error[TIME_INVALID]" in result.err
    assert stub.requests == []


def test_why_at_a_time_for_a_node_is_a_usage_error(run, stub):
    result = run("why", stub.NODE, "--at", "15m", "--url", stub.url)
    assert result.code == 2
    assert "--at is for pools" in result.err


def test_why_of_nothing_known_is_not_found(run, stub):
    result = run("why", "nothing", "--url", stub.url)
    assert (result.code, result.out) == (2, "")
    assert "error[NOT_FOUND]" in result.err
    assert "no pool 'nothing', and no node" in result.err
    assert "secbeat pools, secbeat nodes" in result.err


@pytest.mark.parametrize("code", sorted(catalogue.ALL))
def test_every_code_is_explained(run, code):
    result = run("explain", code)
    assert result.code == 0
    assert catalogue.ALL[code].cause in result.out
    assert catalogue.ALL[code].remedy in result.out


def test_explain_takes_lower_case_and_hyphens(run):
    assert run("explain", "nats-unreachable").out == run("explain", "NATS_UNREACHABLE").out


def test_unknown_and_undocumented_codes_are_told_apart(run):
    unknown, foreign = run("explain", "NO_SUCH_CODE"), run("explain", "PREDICTED_HIGH_FLEET_CPU_LOAD")
    assert (unknown.code, foreign.code) == (2, 2)
    assert "error[UNKNOWN_CODE]" in unknown.err
    assert "error[CODE_UNDOCUMENTED]" in foreign.err
    assert "treated as HIGH_FLEET_CPU_LOAD" in foreign.err


def test_an_explanation_names_its_place_in_the_documentation(run):
    assert "  docs: reference/codes.html#at-max" in run("explain", "AT_MAX").out


def test_an_unknown_code_suggests_near_ones(run):
    result = run("explain", "NATS_UNREACHBLE")
    assert result.code == 2
    assert "NATS_UNREACHABLE" in result.err
    assert run("explain", "zzzz").code == 2


def test_explain_alone_lists_every_code(run):
    listed = json.loads(run("explain", "-o", "json").out)
    assert [entry["code"] for entry in listed] == sorted(catalogue.ALL)
