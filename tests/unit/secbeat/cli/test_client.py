"""Finding a service, talking to it, and what its refusals become."""

from __future__ import annotations

import json
import socket

import pytest

from secbeat.errors import AuthError, RefusedError, SecbeatError, UnreachableError


@pytest.fixture
def run_file(tmp_path, token_file):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)

    def write(**entries):
        (state / "run.json").write_text(json.dumps({"v": 1, "token_file": str(token_file), **entries}))

    return write


def bearer(stub) -> str | None:
    return stub.requests[-1][3].get("authorization")


def test_the_run_file_of_up_gives_address_and_token(run, stub, run_file):
    run_file(url=stub.url)
    assert run("pools").code == 0
    assert bearer(stub) == "Bearer stub-token"


def test_a_flag_comes_before_the_environment_and_that_before_the_run_file(run, stub, run_file, monkeypatch):
    run_file(url="http://127.0.0.1:1")
    assert run("pools").code == 5
    monkeypatch.setenv("SECBEAT_URL", stub.url)
    assert run("pools").code == 0
    monkeypatch.setenv("SECBEAT_URL", "http://127.0.0.1:1")
    assert run("pools", "--url", stub.url).code == 0


def test_the_run_files_token_is_never_sent_to_another_address(run, stub, run_file):
    run_file(url="http://127.0.0.1:1")
    assert run("pools", "--url", stub.url).code == 0
    assert bearer(stub) is None


def test_a_token_file_is_sent_wherever_the_person_says(run, stub, token_file, monkeypatch):
    run("pools", "--url", stub.url, "--token-file", str(token_file))
    assert bearer(stub) == "Bearer stub-token"
    monkeypatch.setenv("SECBEAT_TOKEN_FILE", str(token_file))
    run("pools", "--url", stub.url + "/")
    assert bearer(stub) == "Bearer stub-token"


def test_a_token_file_that_others_can_read_is_refused_with_the_command_that_mends_it(run, stub, token_file):
    token_file.chmod(0o644)
    result = run("pools", "--url", stub.url, "--token-file", str(token_file))
    assert result.code == 2
    assert f"fix:  chmod 600 {token_file}" in result.err
    assert "stub-token" not in result.err
    assert not stub.requests


@pytest.mark.parametrize(
    "url", ["ftp://host", "127.0.0.1:3030", "http://", "http://user:pw@host", "http://a b", "http://[::1"]
)
def test_an_address_that_is_none_is_a_usage_error_and_repeats_no_login(run, url):
    result = run("pools", "--url", url)
    assert result.code == 2
    assert "error[URL_INVALID]" in result.err
    assert "pw" not in result.err


def test_proxies_of_the_environment_are_not_used(run, stub, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert run("pools", "--url", stub.url).code == 0


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (AuthError("NOT_AUTHENTICATED", why="a bearer token is needed"), 4),
        (AuthError("NOT_AUTHORISED", why="has scope read", status=403), 4),
        (RefusedError("STATE_IN_USE", why="revision is 4, not 3", fix="secbeat pools"), 3),
        (SecbeatError("TOO_MANY_FAILURES", why="from 127.0.0.1", status=429), 3),
        (SecbeatError("NOT_FOUND", why="no pool web", status=404), 2),
        (SecbeatError("BODY_INVALID", why="size: too large", status=422), 2),
        (UnreachableError("STATE_UNAVAILABLE", why="no confirmation"), 5),
        (SecbeatError("INTERNAL", why="POST /api/v1/pools/web/scale"), 1),
    ],
)
def test_a_refusal_of_the_service_keeps_its_code_its_why_and_its_fix(run, stub, error, exit_code):
    stub.answers["POST", "/api/v1/pools/web/pause"] = error
    result = run("pause", "web", "--url", stub.url)
    assert result.code == exit_code
    assert result.out == ""
    assert result.err.splitlines() == error.lines()


def test_a_code_that_this_version_does_not_know_is_printed_as_it_came(run, stub):
    problem = {"code": "FROM_THE_FUTURE", "title": "New", "detail": "measured", "fix": "secbeat new", "status": 409}
    stub.answers["POST", "/api/v1/pools/web/resume"] = (409, json.dumps(problem).encode())
    result = run("resume", "web", "--url", stub.url)
    assert result.code == 3
    assert result.err.splitlines()[:3] == ["error[FROM_THE_FUTURE]: New", "  why:  measured", "  fix:  secbeat new"]


@pytest.mark.parametrize(
    ("answer", "code", "exit_code"),
    [
        ((502, b"<html>bad gateway</html>"), "UNEXPECTED_ANSWER", 5),
        ((200, b"<html>hello</html>"), "UNEXPECTED_ANSWER", 1),
        ((301, b""), "UNEXPECTED_ANSWER", 1),
        ((404, b""), "NOT_FOUND", 2),
        ((401, b""), "NOT_AUTHENTICATED", 4),
        ((500, b'["no problem"]'), "UNEXPECTED_ANSWER", 1),
    ],
)
def test_an_answer_that_is_not_ours_is_said_to_be_so(run, stub, answer, code, exit_code):
    stub.answers["GET", "/api/v1/pools/web"] = answer
    result = run("pools", "show", "web", "--url", stub.url)
    assert (result.code, result.out) == (exit_code, "")
    assert f"error[{code}]" in result.err


def test_control_characters_of_a_service_do_not_reach_the_terminal(run, stub):
    problem = {"code": "USAGE", "title": "\x1b]0;owned\x07", "detail": "a\x1b[2Jb", "status": 409}
    stub.answers["POST", "/api/v1/pools/web/resume"] = (409, json.dumps(problem).encode())
    result = run("resume", "web", "--url", stub.url)
    assert "\x1b" not in result.err
    assert "\x07" not in result.err


def test_a_service_that_accepts_and_says_nothing_is_given_up(run, monkeypatch):
    monkeypatch.setattr("secbeat.cli.client.ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = run("pools", "--url", f"http://127.0.0.1:{server.getsockname()[1]}")
    assert result.code == 5
    assert "error[SERVICE_UNREACHABLE]" in result.err
    assert "timed out" in result.err


def test_what_does_not_speak_http_is_unreachable_not_a_traceback(run, monkeypatch):
    monkeypatch.setattr("secbeat.cli.client.ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        import threading

        def answer():
            peer, _ = server.accept()
            peer.sendall(b"INFO {}\r\n")
            peer.close()

        thread = threading.Thread(target=answer)
        thread.start()
        result = run("pools", "--url", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert result.code == 5


def test_an_id_may_be_shortened_or_be_the_machines_name(run, stub):
    for given in (stub.NODE, "web-1f9c2a7e"):
        assert run("nodes", "show", given, "--url", stub.url).code == 0
    assert run("drain", "ABCDEF12", "--url", stub.url).code == 2  # the stub has no such route: 404
    assert stub.paths("POST") == [f"/api/v1/nodes/{stub.OTHER}/drain"]
    assert run("operations", "show", stub.OP[:25].lower(), "--url", stub.url).code == 0
    assert stub.paths("GET")[-1] == f"/api/v1/operations/{stub.OP}"
    assert run("jobs", "show", stub.OP[:25], "--url", stub.url).code == 0


def test_an_ambiguous_id_lists_its_matches(run, stub):
    result = run("drain", "1f9c", "--url", stub.url)
    assert result.code == 2
    assert "error[ID_AMBIGUOUS]" in result.err
    assert stub.NODE in result.err
    assert stub.TWIN in result.err
    assert stub.paths("POST") == []


def test_an_unknown_id_says_how_to_list_what_exists(run, stub):
    result = run("drain", "ffff", "--url", stub.url)
    assert result.code == 2
    assert "secbeat nodes" in result.err
    assert run("operations", "show", "ZZZ", "--url", stub.url).code == 2


def test_an_id_cannot_lead_to_another_path(run, stub):
    run("pools", "show", "../../healthz?x=1#y", "--url", stub.url)
    assert stub.paths("GET") == ["/api/v1/pools/..%2F..%2Fhealthz%3Fx%3D1%23y"]
