"""Streams: no event and no byte of a log is lost or repeated when a connection breaks."""

from __future__ import annotations

import io
import json
import threading

import pytest

from secbeat.cli import following, log_copy
from secbeat.cli.client import Client
from secbeat.cli.finding import Target
from secbeat.cli.output import Format, Output
from secbeat.errors import SecbeatError


@pytest.fixture
def client(stub):
    return Client(Target("orchestrator", stub.url, None, "the test"))


class Collected:
    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def write(self, data: bytes) -> None:
        self.data += data

    def end(self) -> None:
        self.ended = True


def test_events_are_printed_one_per_line(run, stub):
    result = run("events", "--url", stub.url)
    assert result.code == 0
    assert [line.split("  ")[-1] for line in result.out.splitlines()] == [
        "node 1 joined",
        "node 2 joined",
        "node 3 joined",
    ]


def test_events_as_json_are_one_object_per_line(run, stub):
    lines = run("events", "--url", stub.url, "-o", "json").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]


def test_events_can_be_those_after_a_number_or_of_one_pool(run, stub):
    lines = run("events", "--after", "2", "--url", stub.url, "-o", "json").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [3]
    assert run("events", "--pool", "other", "--url", stub.url).out == ""


def test_without_follow_the_service_is_asked_to_end_the_stream(run, stub):
    run("events", "--newest", "7", "--url", stub.url)
    _, path, query, _, _ = stub.requests[-1]
    assert (path, query) == ("/api/v1/events", {"newest": "7", "once": "1"})


def test_following_resumes_after_the_last_whole_event(client, stub, monkeypatch):
    monkeypatch.setattr(following, "_RETRY_SECONDS", 0.01)
    stub.drop_after["events"] = 1
    stream = following._events(client, None, newest=10, follow=True)
    assert [next(stream)["seq"] for _ in range(3)] == [1, 2, 3]
    stream.close()
    resumed = [headers.get("last-event-id") for _, _, _, headers, _ in stub.requests]
    assert resumed == [None, "1", "2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'id: 1\ndata: {"a": 1}\n\n', [(1, {"a": 1})]),
        (b'id:1\r\ndata:{"a":\r\ndata: 1}\r\n\r\n', [(1, {"a": 1})]),
        (b": comment\n\nretry: 5\n\ndata: {}\n\n", [(None, {})]),
        (b'id: 1\ndata: {"cut": ', []),
        (b"id: 5\ndata: {}\n\nid: x\ndata: {}\n\n", [(5, {}), (5, {})]),
        (b"", []),
    ],
)
def test_the_stream_format_is_read_as_browsers_read_it(text, expected):
    place = following.Place()
    assert [(place.after, event) for event in place.events(io.BytesIO(text))] == expected


def test_a_number_without_an_event_moves_the_reader_and_a_cut_event_does_not():
    place = following.Place()
    assert list(place.events(io.BytesIO(b': hello\nid: 41\n\nid: 42\ndata: {"cut"'))) == []
    assert place.after == 41


def test_a_connection_lost_before_the_first_event_misses_none(client, stub, monkeypatch):
    monkeypatch.setattr(following, "_RETRY_SECONDS", 0.01)
    stub.drop_after["events"] = 0
    stub.hello = 2
    stream = following._events(client, None, newest=0, follow=True)
    stub.drop_next = stub.drop_after.clear
    assert next(stream)["seq"] == 3
    stream.close()
    assert [headers.get("last-event-id") for _, _, _, headers, _ in stub.requests] == [None, "2"]


def test_a_gap_is_told_and_is_no_event(capsys):
    text = b'event: gap\ndata: {"oldest":8}\n\nid: 8\ndata: {"seq": 8}\n\n'
    assert list(following.Place(3).events(io.BytesIO(text))) == [{"seq": 8}]
    assert "Events 4 to 7 are no longer kept" in capsys.readouterr().err


def test_a_log_is_copied_byte_for_byte(stub, client):
    sink = Collected()
    log_copy.copy_log(client, stub.OP, sink, follow=False)
    assert sink.data == stub.LOG
    assert sink.ended


@pytest.mark.parametrize("follow", [True, False])
def test_a_log_whose_connection_breaks_again_and_again_has_no_gap_and_no_repetition(stub, client, follow):
    stub.drop_after["log"] = 9_999
    sink = Collected()
    log_copy.copy_log(client, stub.OP, sink, follow=follow)
    assert sink.data == stub.LOG


def test_following_a_log_goes_on_until_the_job_has_ended(stub, client, monkeypatch):
    monkeypatch.setattr(log_copy, "POLL_SECONDS", 0.01)
    states = iter(["queued", "running", "running", "succeeded"])
    stub.answers["GET", f"/jobs/{stub.OP}"] = lambda: stub.job(state=next(states))
    log_copy.copy_log(client, stub.OP, Collected(), follow=True)
    assert next(states, None) is None


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_the_exit_code_of_following_is_that_of_the_job(run, stub, monkeypatch, state, code):
    monkeypatch.setattr("secbeat.cli.log_copy.Raw", Collected)
    error = {"code": "TASK_FAILED", "message": "disk full", "task": None} if state == "failed" else None
    stub.answers["GET", f"/jobs/{stub.OP}"] = stub.job(state=state, error=error)
    result = run("jobs", "log", stub.OP, "-f", "--provisioner-url", stub.url)
    assert result.code == code
    assert f"ob {stub.OP} {state}" in result.err
    assert ("TASK_FAILED: disk full" in result.err) == (state == "failed")
    assert run("jobs", "log", stub.OP, "--provisioner-url", stub.url).code == 0, "the log of a failed job can be read"


def test_following_waits_for_a_job_whose_operation_was_just_written(run, stub, monkeypatch):
    monkeypatch.setattr(following, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr("secbeat.cli.log_copy.Raw", Collected)
    answers = iter([None, None, stub.job(state="queued"), stub.job(state="succeeded")])
    missing = SecbeatError("NOT_FOUND", why="there is no job", status=404)
    stub.answers["GET", f"/jobs/{stub.OP}"] = lambda: next(answers) or missing
    stub.answers["GET", f"/api/v1/operations/{stub.OP}"] = stub.operation(state="requested")
    result = run("jobs", "log", stub.OP, "-f", "--url", stub.url, "--provisioner-url", stub.url)
    assert result.code == 0
    assert "the provisioner has no job of it yet" in result.err
    assert "is queued" in result.err


def test_following_a_job_that_nobody_knows_ends_at_once(run, stub):
    stub.answers["GET", f"/jobs/{stub.OP}"] = SecbeatError("NOT_FOUND", why="there is no job", status=404)
    stub.answers["GET", f"/api/v1/operations/{stub.OP}"] = stub.operation(state="failed")
    assert run("jobs", "log", stub.OP, "-f", "--url", stub.url, "--provisioner-url", stub.url).code == 2


def test_a_log_that_breaks_without_a_byte_is_given_up_without_follow(stub, client):
    from secbeat.errors import UnreachableError

    stub.drop_after["log"] = 0
    with pytest.raises(UnreachableError):
        log_copy.copy_log(client, stub.OP, Collected(), follow=False)


def test_a_log_as_json_has_one_object_per_line_however_it_was_cut(capsys):
    lines = log_copy.Lines(Output(Format.JSON))
    for part in (b"one\ntw", b"o\n", b"x" * 200_000, b"\nthe ", b"end"):
        lines.write(part)
    lines.end()
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["line"] for one in found] == [1, 2, 3, 4]
    assert [one["text"] for one in found] == ["one", "two", "x" * 200_000, "the end"]


def test_the_provisioners_address_comes_from_the_run_file(run, stub, tmp_path, monkeypatch):
    state = tmp_path / "state"
    state.mkdir()
    (state / "run.json").write_text(json.dumps({"url": stub.url, "provisioner_url": stub.url}))
    monkeypatch.setattr("secbeat.cli.log_copy.Raw", Collected)
    assert run("jobs", "log", stub.OP[:25]).code == 0
    assert stub.paths("GET") == ["/api/v1/jobs", f"/jobs/{stub.OP}/log"]


def test_a_reader_that_goes_away_is_no_error(stub):
    import subprocess
    import sys

    command = [sys.executable, "-m", "secbeat", "jobs", "log", stub.OP, "--provisioner-url", stub.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    killer = threading.Timer(20, process.kill)
    killer.start()
    errors = process.stderr.read()
    process.stderr.close()
    code = process.wait()
    killer.cancel()
    assert (code, errors) == (0, b"")
