"""What the commands that change something send, and how --wait ends."""

from __future__ import annotations

import json

import pytest

from secbeat.cli import waiting
from secbeat.errors import RefusedError, SecbeatError, UnreachableError, WaitTimeoutError

API = "/api/v1"


class Pace:
    """Virtual time."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Answers:
    """A client that gives the next answer of a script for each path; the last one stays."""

    def __init__(self, **script) -> None:
        self.script = {name: list(answers) for name, answers in script.items()}

    def _next(self, *parts):
        answers = self.script[parts[2]]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get(self, *parts, **_):
        return self._next(*parts)

    def items(self, *parts, **_):
        return self._next(*parts)


@pytest.fixture
def told():
    return []


@pytest.fixture
def wait(told):
    return waiting.Wait(60.0, "the work", pace=Pace(), tell=told.append)


def test_scale_sends_size_duration_and_revision(run, stub):
    assert run("scale", "web", "5", "--for", "2h", "--if-revision", "3", "--url", stub.url).code == 0
    assert stub.body(f"{API}/pools/web/scale") == {"size": 5, "for_seconds": 7200.0, "if_revision": 3}


def test_scale_tells_its_plan_before_it_acts(run, stub):
    result = run("scale", "web", "5", "--for", "2h", "--url", stub.url)
    assert result.err.startswith("plan: pool web from 3 to 5: creates 2; held until ")
    assert "revision 3\n" in result.err


def test_a_plan_names_who_would_leave_and_does_nothing(run, stub):
    candidates = [
        {"node_id": stub.NODE, "blocked_by": "PROTECTED"},
        {"node_id": stub.OTHER, "blocked_by": None},
        {"node_id": stub.TWIN, "blocked_by": None},
    ]
    decision = dict(stub.POOL["decision"], snapshot={"candidates": candidates})
    pause = {"direction": "in", "until": None}
    stub.answers["GET", f"{API}/pools/web"] = dict(stub.POOL, decision=decision, pause=pause)
    result = run("scale", "web", "2", "--dry-run", "--url", stub.url)
    assert (result.code, stub.paths("POST")) == (0, [])
    assert "from 3 to 2: removes 1 (abcdef12 as things are); held until 'secbeat resume' ends it" in result.out
    assert "nothing happens while PAUSED_IN holds the pool: secbeat why web" in result.out
    data = json.loads(run("scale", "web", "2", "--dry-run", "-o", "json", "--url", stub.url).out)
    assert (data["nodes"], data["revision"], data["held_by"]) == ([stub.OTHER], 3, "PAUSED_IN")


@pytest.mark.parametrize(
    ("arguments", "code"), [(["11"], "SIZE_OUT_OF_RANGE"), (["5", "--if-revision", "2"], "CHANGED_MEANWHILE")]
)
def test_a_plan_that_cannot_be_carried_out_is_refused_and_nothing_is_sent(run, stub, arguments, code):
    for more in ([], ["--dry-run"]):
        result = run("scale", "web", *arguments, *more, "--url", stub.url)
        assert (result.code, stub.paths("POST")) == (3, [])
        assert f"error[{code}]" in result.err


def test_pause_sends_direction_and_reason_and_warns_when_it_has_no_end(run, stub):
    result = run("pause", "web", "--direction", "in", "--reason", "upgrade", "--url", stub.url)
    assert stub.body(f"{API}/pools/web/pause") == {"direction": "in", "reason": "upgrade"}
    assert "has no end" in result.err
    assert "has no end" not in run("pause", "web", "--for", "5m", "--url", stub.url).err


def test_protect_is_put_on_and_taken_off(run, stub):
    run("protect", stub.NODE, "--url", stub.url)
    assert stub.body(f"{API}/nodes/{stub.NODE}/protect") == {"on": True}
    run("protect", stub.NODE, "--off", "--url", stub.url)
    assert stub.body(f"{API}/nodes/{stub.NODE}/protect") == {"on": False}


@pytest.mark.parametrize("duration", ["90", "5 m", "-5m", "0s", "m", "5y", "400d", "1h30"])
def test_a_wrong_duration_is_refused_before_anything_is_sent(run, stub, duration):
    result = run("scale", "web", "5", f"--for={duration}", "--url", stub.url)
    assert result.code == 2
    assert "error[DURATION_INVALID]" in result.err
    assert stub.requests == []


def test_a_wrong_timeout_is_refused_before_anything_is_sent(run, stub):
    assert run("drain", stub.NODE, "--wait", "--timeout", "soon", "--url", stub.url).code == 2
    assert stub.requests == []


def test_scale_wait_ends_when_the_pool_serves_at_its_size(run, stub, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "on_terminal", lambda: True)
    begun = dict(stub.POOL, active=2, pending=1)
    views = iter([begun, begun, dict(stub.POOL, active=3, pending=0)])
    stub.answers["GET", f"{API}/pools/web"] = lambda: next(views)
    stub.answers["GET", f"{API}/operations"] = {"items": []}
    result = run("scale", "web", "3", "--wait", "--url", stub.url, "-o", "json")
    assert result.code == 0
    assert '"active": 3' in result.out
    assert "2 of 3 active, 1 pending" in result.err


def test_drain_wait_follows_the_operation_to_its_end(run, stub, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "on_terminal", lambda: True)
    states = iter(["draining", "tearing_down", "succeeded"])
    stub.answers["GET", f"{API}/operations/{stub.OP}"] = lambda: stub.operation(state=next(states))
    result = run("drain", stub.NODE, "--wait", "--url", stub.url)
    assert result.code == 0
    assert [word for word in ("draining", "tearing_down", "succeeded") if word in result.err] == [
        "draining",
        "tearing_down",
        "succeeded",
    ]


def test_without_a_terminal_a_wait_is_silent(run, stub, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    stub.answers["GET", f"{API}/operations/{stub.OP}"] = stub.operation(state="succeeded")
    result = run("drain", stub.NODE, "--wait", "--url", stub.url)
    assert (result.code, result.err) == (0, "")


def test_drain_wait_fails_at_once_with_the_operations_error(run, stub):
    error = {"code": "TASK_FAILED", "message": "no route to host", "task": None}
    stub.answers["GET", f"{API}/operations/{stub.OP}"] = stub.operation(state="failed", error=error)
    result = run("drain", stub.NODE, "--wait", "--url", stub.url)
    assert result.code == 1
    assert "error[WORK_FAILED]" in result.err
    assert "TASK_FAILED: no route to host" in result.err


def test_drain_wait_that_is_undrained_by_somebody_failed(run, stub):
    stub.answers["GET", f"{API}/operations/{stub.OP}"] = stub.operation(state="cancelled")
    assert run("drain", stub.NODE, "--wait", "--url", stub.url).code == 1
    assert run("undrain", stub.NODE, "--wait", "--url", stub.url).code == 0


def test_a_wait_that_is_over_exits_with_6(run, stub, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    result = run("drain", stub.NODE, "--wait", "--timeout", "0.1s", "--url", stub.url)
    assert result.code == 6
    assert "error[WAIT_TIMED_OUT]" in result.err


def test_a_wait_lasts_exactly_its_time_and_tells_only_changes(told):
    pace = Pace()
    wait = waiting.Wait(60.0, "the work", pace=pace, tell=told.append)
    with pytest.raises(WaitTimeoutError):
        wait.until(lambda: (False, "same"))
    assert pace.time == 60.0
    assert told == ["    0s  same"]


def test_a_service_that_restarts_does_not_end_a_wait(wait, told, stub):
    gone = UnreachableError("SERVICE_UNREACHABLE", why="refused")
    client = Answers(operations=[gone, gone, stub.operation(state="succeeded")])
    assert waiting.for_operation(client, stub.OP, wait, wanted="succeeded")["state"] == "succeeded"
    assert "refused; trying again" in told[0]


def test_a_failed_operation_of_the_pool_ends_a_wait_for_its_size(wait, stub):
    client = Answers(pools=[dict(stub.POOL, active=2)], operations=[[stub.operation(stub.OP2, state="failed")]])
    with pytest.raises(SecbeatError) as caught:
        waiting.for_size(client, "web", 3, wait, known=set())
    assert caught.value.code == "WORK_FAILED"


def test_what_failed_before_is_not_this_requests_failure(wait, stub):
    client = Answers(
        pools=[dict(stub.POOL, active=2), dict(stub.POOL, active=3, pending=0)],
        operations=[[stub.operation(stub.OP2, state="failed")]],
    )
    assert waiting.for_size(client, "web", 3, wait, known={stub.OP2})["active"] == 3


def test_a_size_is_reached_only_when_nothing_is_on_its_way_in_or_out(told, stub):
    pace = Pace()
    wait = waiting.Wait(5.0, "pool web", pace=pace, tell=told.append)
    client = Answers(pools=[dict(stub.POOL, active=3, pending=0, draining=1)], operations=[[]])
    with pytest.raises(WaitTimeoutError):
        waiting.for_size(client, "web", 3, wait, known=set())


def test_a_pool_that_only_observes_ends_the_wait_at_once(wait, stub):
    client = Answers(pools=[dict(stub.POOL, mode="observe")], operations=[[]])
    with pytest.raises(RefusedError) as caught:
        waiting.for_size(client, "web", 3, wait, known=set())
    assert caught.value.code == "WAIT_POINTLESS"


def test_another_override_ends_the_wait_at_once(wait, stub):
    client = Answers(pools=[dict(stub.POOL, override={"size": 9, "by": "eve"})], operations=[[]])
    with pytest.raises(RefusedError, match="eve has set pool web to 9"):
        waiting.for_size(client, "web", 3, wait, known=set())


def test_a_join_file_is_private_and_the_secret_is_not_printed(run, stub, tmp_path):
    path = tmp_path / "join.json"
    result = run("nodes", "new", "--pool", "web", "--join-file", str(path), "--url", stub.url)
    assert result.code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert "JOIN-SECRET-CANARY" in path.read_text()
    assert "JOIN-SECRET-CANARY" not in result.out + result.err


def test_a_join_file_is_what_a_node_reads(run, stub, tmp_path):
    from secbeat.wire.registration import JoinFile

    path = tmp_path / "join.json"
    run("nodes", "new", "--pool", "web", "--join-file", str(path), "--url", stub.url)
    assert JoinFile.decode(path.read_text()).node_id == stub.NODE


def test_a_join_file_never_overwrites_and_then_no_secret_is_made(run, stub, tmp_path):
    path = tmp_path / "join.json"
    path.write_text("precious")
    result = run("nodes", "new", "--pool", "web", "--join-file", str(path), "--url", stub.url)
    assert result.code == 2
    assert "error[FILE_EXISTS]" in result.err
    assert path.read_text() == "precious"
    assert stub.requests == []


def test_a_join_file_that_cannot_be_written_is_named_before_a_secret_is_made(run, stub, tmp_path):
    result = run("nodes", "new", "--pool", "web", "--join-file", str(tmp_path / "no" / "join.json"), "--url", stub.url)
    assert result.code == 2
    assert "error[FILE_NOT_WRITABLE]" in result.err
    assert stub.requests == []


def test_a_refused_new_node_leaves_no_file(run, stub, tmp_path):
    stub.answers["POST", f"{API}/pools/web/nodes"] = RefusedError("STATE_IN_USE", why="pool web is at max")
    path = tmp_path / "join.json"
    assert run("nodes", "new", "--pool", "web", "--join-file", str(path), "--url", stub.url).code == 3
    assert not path.exists()
