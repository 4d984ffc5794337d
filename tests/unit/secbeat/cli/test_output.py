"""Tables, colours, durations, short ids, redaction: what a person sees."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from secbeat.cli import views
from secbeat.cli.durations import age, format_seconds, parse_duration, parse_moment
from secbeat.cli.output import Column, clean, table, use_colour
from secbeat.cli.redaction import redact, redact_text
from secbeat.errors import ConfigError

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
COLUMNS = [Column("NAME", lambda row: row["name"]), Column("N", lambda row: row["n"], right=True)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("0.5s", 0.5)]
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.42, "0.4s"), (45, "45s"), (192, "3m12s"), (7500, "2h05m"), (273_600, "3d04h"), (-192, "-3m12s")],
)
def test_durations_are_written_with_two_units_at_most(seconds, text):
    assert format_seconds(seconds) == text


def test_ages_count_from_now_and_what_is_no_time_is_shown_as_it_is():
    assert age("2026-01-31T02:56:48Z", NOW) == "3m12s"
    assert age("2026-01-31T02:56:48", NOW) == "3m12s"
    assert age(None, NOW) == "-"
    assert age("soon", NOW) == "soon"
    assert age("2026-01-31T03:00:05Z", NOW) == "0s"


def test_moments_are_times_or_so_long_ago():
    assert parse_moment("15m", NOW) == datetime(2026, 1, 31, 2, 45, tzinfo=UTC)
    assert parse_moment("2026-01-31T04:00:00+01:00", NOW) == NOW
    with pytest.raises(ConfigError):
        parse_moment("then", NOW)


def test_a_table_is_aligned_and_numbers_stand_right():
    lines = table([{"name": "a", "n": 5}, {"name": "longer", "n": 123}], COLUMNS, colour=False, width=None)
    assert lines == ["NAME      N", "a         5", "longer  123"]


def test_a_table_on_a_narrow_terminal_cuts_its_last_column():
    columns = [Column("NAME", lambda row: row["name"]), Column("TEXT", lambda row: "x" * 100)]
    assert all(len(line) <= 40 for line in table([{"name": "a"}], columns, colour=False, width=40))
    assert "x" * 100 in table([{"name": "a"}], columns, colour=False, width=None)[1]


def test_colour_never_changes_the_alignment():
    columns = [Column("STATE", lambda row: row["state"]), Column("N", lambda row: 1, right=True)]
    import re

    plain = table([{"state": "failed"}, {"state": "active"}], columns, colour=False, width=None)
    coloured = table([{"state": "failed"}, {"state": "active"}], columns, colour=True, width=None)
    assert "\x1b[31m" in coloured[1]
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in coloured] == plain


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert use_colour(Terminal())
    assert not use_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not use_colour(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not use_colour(Terminal())


def test_a_cell_is_one_line_without_control_characters():
    assert clean("a\x1b[31m\nb\x9b") == "a [31m b "
    assert clean(None) == "-"
    assert clean(0) == "0"


def test_short_ids_have_at_least_eight_characters_and_stay_different():
    ids = ["1f9c2a7e-0001", "1f9c2a7e-0002", "abcdef12-0003"]
    short = views.shortener(ids)
    assert len({short(one) for one in ids}) == 3
    assert views.shortener(["1f9c2a7e-0001", "abcdef12-0003"])("1f9c2a7e-0001") == "1f9c2a7e"
    assert short(None) == "-"


def test_what_holds_a_pool_is_listed_with_the_time_that_is_left():
    pool = {
        "mode": "observe",
        "pause": {"direction": "in", "until": "2026-01-31T03:10:00Z"},
        "override": {"size": 5, "until": None},
        "breaker": {"open_since": "2026-01-31T02:00:00Z"},
        "frozen_since": "2026-01-31T02:58:00Z",
        "retired": True,
    }
    assert views.hold(pool, NOW) == "observe, retired, frozen 2m00s, breaker open, paused in 10m00s left, size 5"
    assert views.hold({}, NOW) == ""


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("management.auth_token", SecretStr("hunter2"), "(hidden)"),
        ("blueprints.a.variables", {"db_password": "hunter2", "cores": 2}, {"db_password": "(hidden)", "cores": 2}),
        ("nats.url", "nats://user:hunter2@10.0.0.1:4222", "nats://(hidden)@10.0.0.1:4222"),
        ("orchestrator.provisioning_webhook_url", "https://h/p?token=hunter2&x=1", "https://h/p?token=(hidden)&x=1"),
        ("provisioner.service_token_file", "/run/token", "/run/token"),
        ("orchestrator.allowed_hosts", ["a"], ["a"]),
        ("nats.replicas", 3, 3),
    ],
)
def test_secrets_are_hidden_by_kind_by_name_and_inside_addresses(key, value, shown):
    assert redact(key, value) == shown


def test_several_addresses_in_one_text_are_all_redacted():
    assert redact_text("nats://a:b@h1:4222,nats://c@h2:4222") == "nats://(hidden)@h1:4222,nats://(hidden)@h2:4222"
