from __future__ import annotations

from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from provisioner.joining import JoinFailed, OrchestratorJoins, write_join_file
from secbeat import ids
from secbeat.wire.registration import JoinFile, JoinSecret

OP = "01J00000000000000000000000"


def secret(**changes):
    values = {
        "cluster_id": ids.new_cluster_id(), "node_id": ids.new_node_id(), "op_id": OP, "pool": "default",
        "secret": "the-secret", "expires_at": (datetime.now(UTC) + timedelta(minutes=15)).isoformat(),
    }  # fmt: skip
    return values | changes


@pytest.fixture
async def ask():
    """``await ask(status, body)``: what the source makes of an answer."""
    answers, seen = [], []

    async def answer(request):
        seen.append((request.match_info["op_id"], request.headers.get("Authorization")))
        status, body = answers[0]
        return web.json_response(body, status=status, headers={"Location": "http://127.0.0.1:1/"})

    app = web.Application()
    app.router.add_post("/api/v1/operations/{op_id}/join", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:

        async def ask(status, body=None, token="the-token", url=None):
            answers[:] = [(status, body)]
            source = OrchestratorJoins(url or str(server.make_url("/")), token, session)
            return await source.fetch(OP)

        ask.seen = seen
        yield ask


async def test_a_secret_is_fetched_with_the_service_token(ask):
    assert (await ask(200, secret())).secret.get_secret_value() == "the-secret"
    assert ask.seen == [(OP, "Bearer the-token")]


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (500, "JOIN_SECRET_UNAVAILABLE", True), (503, "JOIN_SECRET_UNAVAILABLE", True),
        (429, "JOIN_SECRET_UNAVAILABLE", True), (404, "OPERATION_ENDED", False), (409, "OPERATION_ENDED", False),
        (401, "JOIN_SECRET_REFUSED", True), (403, "JOIN_SECRET_REFUSED", True), (302, "JOIN_SECRET_REFUSED", True),
    ],
)  # fmt: skip
async def test_each_refusal_has_its_code(ask, status, code, retryable):
    with pytest.raises(JoinFailed) as caught:
        await ask(status, {})
    assert (caught.value.error.code, caught.value.error.retryable) == (code, retryable)


@pytest.mark.parametrize("body", [{}, [], "x", secret(op_id="01J00000000000000000000001"), secret(node_id="../x")])
async def test_an_answer_that_is_no_secret_of_this_operation_is_refused(ask, body):
    with pytest.raises(JoinFailed) as caught:
        await ask(200, body)
    assert caught.value.error.code == "JOIN_SECRET_REFUSED"
    assert "the-secret" not in caught.value.error.message


async def test_an_orchestrator_that_does_not_answer_is_asked_again_later(ask):
    with pytest.raises(JoinFailed) as caught:
        await ask(200, url="http://127.0.0.1:1")
    assert caught.value.error.code == "JOIN_SECRET_UNAVAILABLE"


async def test_without_a_service_token_nothing_is_asked(ask):
    with pytest.raises(JoinFailed) as caught:
        await ask(200, secret(), token=None)
    assert caught.value.error.code == "JOIN_SECRET_REFUSED"
    assert ask.seen == []


def test_the_file_is_private_and_complete(tmp_path):
    path = tmp_path / "machines" / "n" / "join.json"
    path.parent.mkdir(parents=True, mode=0o755)
    write_join_file(path, JoinSecret.model_validate(secret()), server_url="http://127.0.0.1:3030")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    found = JoinFile.decode(path.read_bytes())
    assert (found.server_url, found.secret.get_secret_value()) == ("http://127.0.0.1:3030", "the-secret")


@pytest.mark.parametrize("place", ["machines", "machines/n"])
def test_a_file_in_the_way_is_named_and_no_secret_is(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("in the way")
    with pytest.raises(JoinFailed) as caught:
        write_join_file(tmp_path / "machines/n/join.json", JoinSecret.model_validate(secret()), server_url="http://x")
    assert caught.value.error.code == "MACHINE_DIR_UNWRITABLE"
    assert str(tmp_path / "machines") in caught.value.error.message
    assert "the-secret" not in caught.value.error.message
