"""Our routes: what reaches the core, what comes back, who may."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from secbeat import ids, signing
from secbeat.errors import RefusedError
from secbeat.store import Conflict, NotLeader, Unavailable

# Fixed: parallel runs collect the same test names.
NODE_ID, OP_ID = "22222222-2222-4222-8222-222222222222", "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def problem(answer):
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    body = answer.json()
    assert body["status"] == answer.status
    assert body["type"] == f"urn:secbeat:error:{body['code']}"
    assert all(body[key] for key in ("title", "detail", "fix"))
    return body


# ---------------------------------------------------------------- pools


async def test_pools_are_items_and_one_pool_has_its_revision_as_etag(api):
    listed = (await api.get("/api/v1/pools", token="read")).json()
    assert [view["name"] for view in listed["items"]] == ["default"]
    assert listed["next"] is None
    answer = await api.get("/api/v1/pools/default", token="read")
    assert answer.headers["ETag"] == '"12"'
    assert answer.json()["revision"] == 12


async def test_our_reads_need_a_token_on_loopback_too(api):
    for path in ("pools", "pools/default", "operations", "jobs", "decisions", "audit", "events"):
        answer = await api.get(f"/api/v1/{path}")
        assert answer.status == 401, path
        assert problem(answer)["code"] == "NOT_AUTHENTICATED"


@pytest.mark.parametrize(
    ("path", "too_little"),
    [
        ("pools/default/scale", "read"),
        ("pools/default/pause", "read"),
        ("pools/default/resume", "service"),
        ("pools/default/retire", "operate"),
        ("pools/default/nodes", "operate"),
        (f"operations/{OP_ID}/join", "operate"),
        (f"nodes/{NODE_ID}/drain", "read"),
        (f"nodes/{NODE_ID}/protect", "read"),
        (f"jobs/{OP_ID}/cancel", "read"),
    ],
)
async def test_a_scope_that_does_not_suffice_is_403_and_core_is_not_asked(api, path, too_little):
    answer = await api.post(f"/api/v1/{path}", {"size": 3, "on": True}, token=too_little)
    assert answer.status == 403
    assert problem(answer)["code"] == "NOT_AUTHORISED"
    assert api.control.calls == []


async def test_scale_hands_body_and_caller_to_core_and_answers_the_new_view(api):
    answer = await api.post("/api/v1/pools/default/scale", {"size": 4, "for_seconds": 60}, token="operate")
    assert (answer.status, answer.headers["ETag"]) == (200, '"13"')
    ((method, call),) = api.control.calls
    assert (method, call["by"], call["request"].size, call["request"].for_seconds) == ("scale", "the-operate", 4, 60)
    assert call["request"].if_revision is None


@pytest.mark.parametrize(
    ("header", "body"),
    [('"12"', {}), ('W/"12"', {}), ("12", {}), (None, {"if_revision": 12}), ('"12"', {"if_revision": 12})],
)
async def test_a_revision_reaches_core_by_header_or_body(api, header, body):
    headers = {"If-Match": header} if header else {}
    answer = await api.post("/api/v1/pools/default/pause", body, token="operate", headers=headers)
    assert answer.status == 200
    assert api.control.calls[0][1]["request"].if_revision == 12


@pytest.mark.parametrize(("header", "body"), [('"abc"', {}), ('"11"', {"if_revision": 12}), ('"-1"', {})])
async def test_a_revision_that_is_none_of_ours_is_refused(api, header, body):
    answer = await api.post("/api/v1/pools/default/resume", body, token="operate", headers={"If-Match": header})
    assert answer.status == 422
    assert problem(answer)["code"] == "REVISION_INVALID"
    assert api.control.calls == []


async def test_if_match_star_asks_for_no_revision(api):
    await api.post("/api/v1/pools/default/resume", {}, token="operate", headers={"If-Match": "*"})
    assert api.control.calls[0][1]["request"].if_revision is None


async def test_what_core_refuses_is_409_with_its_sentence(api):
    api.control.next_error = RefusedError("CHANGED_MEANWHILE", why="revision 12 was asked for, it is 14", revision=14)
    answer = await api.post("/api/v1/pools/default/pause", token="operate")
    assert answer.status == 409
    body = problem(answer)
    assert (body["detail"], body["revision"]) == ("revision 12 was asked for, it is 14", 14)


@pytest.mark.parametrize("verb", ["pause", "resume", "retire", "nodes"])
async def test_a_post_whose_body_is_optional_works_without_one(api, verb):
    answer = await api.post(f"/api/v1/pools/default/{verb}", token="admin")
    assert answer.status in {200, 201}
    assert api.control.calls


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ({"size": -1}, "BODY_INVALID", 422),
        ({"size": "many"}, "BODY_INVALID", 422),
        ({}, "BODY_INVALID", 422),
        (b"{", "BODY_MALFORMED", 400),
        (b'{"size": 3}', "CONTENT_TYPE", 415),
    ],
)
async def test_a_bad_body_of_ours_is_a_problem(api, body, code, status):
    headers = {"Content-Type": "application/json"} if body == b"{" else {}
    answer = await api.post("/api/v1/pools/default/scale", body, token="operate", headers=headers)
    assert answer.status == status
    assert problem(answer)["code"] == code


async def test_an_unknown_pool_is_404(api):
    for path in ("pools/nope", "pools/nope/why"):
        answer = await api.get(f"/api/v1/{path}", token="read")
        assert (answer.status, problem(answer)["code"]) == (404, "NOT_FOUND")


async def test_a_join_file_is_201_and_names_the_address_that_was_called(api):
    answer = await api.post("/api/v1/pools/default/nodes", token="admin", headers={"Host": "localhost:3030"})
    assert answer.status == 201
    assert answer.json()["server_url"] == "http://localhost:3030"
    assert answer.json()["secret"] == "the-join-secret"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_why_answers_the_sentence_in_force_or_at_a_past_time(api, make):
    api.control.known_decisions = [
        make.decision("Early.", make.start),
        make.decision("Late.", make.start + timedelta(hours=1)),
    ]
    now = await api.get("/api/v1/pools/default/why", token="read")
    assert now.json()["sentence"] == "It is as it should be."
    for at in ("03:30:00Z", "05:30:00+02:00", "05:30:00%2B02:00", "03:30:00"):
        then = await api.get(f"/api/v1/pools/default/why?at=2026-11-25T{at}", token="read")
        assert then.json()["sentence"] == "holding at 0: Early.", at


@pytest.mark.parametrize(("at", "status"), [("2020-01-01T00:00:00Z", 404), ("yesterday", 422), ("", 422)])
async def test_why_at_a_time_without_decision_or_no_time_at_all_is_refused(api, at, status):
    answer = await api.get(f"/api/v1/pools/default/why?at={at}", token="read")
    assert answer.status == status
    problem(answer)


# ---------------------------------------------------------------- nodes


async def test_drain_is_202_with_the_operation_and_undrain_200(api):
    node_id = api.add_node()
    answer = await api.post(f"/api/v1/nodes/{node_id}/drain", {"reason": "HOST_UPGRADE"}, token="operate")
    assert answer.status == 202
    assert answer.json()["node_id"] == node_id
    assert api.control.calls[-1][1] == {"node_id": node_id, "reason": "HOST_UPGRADE", "by": "the-operate"}
    answer = await api.post(f"/api/v1/nodes/{node_id}/undrain", token="operate")
    assert (answer.status, answer.json()["state"]) == (200, "cancelled")


async def test_protect_answers_the_changed_node(api):
    node_id = api.add_node()
    answer = await api.post(f"/api/v1/nodes/{node_id}/protect", {"on": True}, token="operate")
    assert (answer.status, answer.json()["protected"]) == (200, True)


async def test_a_bad_or_unknown_node_id_is_404_on_our_routes(api):
    for node_id in ("xyz", ids.new_node_id()):
        answer = await api.get(f"/api/v1/nodes/{node_id}/why", token="read")
        assert answer.status == 404
        problem(answer)


async def test_the_list_shows_one_pool_and_with_all_what_has_no_status_of_the_original(api, make):
    api.control.views["edge"] = make.pool_view("edge")
    active, booting, edge = api.add_node(), api.add_node(state="booting"), api.add_node(pool="edge")

    async def listed(query):
        return {node["node_id"] for node in (await api.get(f"/api/v1/nodes{query}")).json()}

    assert await listed("") == {active, edge}
    assert await listed("?all=1") == {active, booting, edge}
    assert await listed("?pool=default") == {active}
    assert (await api.get("/api/v1/nodes?pool=nope")).status == 404


async def test_a_long_list_comes_in_chunks_and_is_one_array(api):
    wanted = {api.add_node() for _ in range(1200)}
    answer = await api.get("/api/v1/nodes")
    assert {node["node_id"] for node in answer.json()} == wanted
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert (await api.call("HEAD", "/api/v1/nodes")).body == b""


# ---------------------------------------------------------------- operations, jobs


async def test_operations_are_paged_newest_first(api, make):
    records = [make.operation(op_id=f"01{number:024d}") for number in range(5)]
    api.control.records = {one.op_id: one for one in records}
    seen, path = [], "/api/v1/operations?limit=2"
    while path:
        body = (await api.get(path, token="read")).json()
        assert len(body["items"]) <= 2
        seen += [one["op_id"] for one in body["items"]]
        path = f"/api/v1/operations?limit=2&after={body['next']}" if body["next"] else None
    assert seen == [one.op_id for one in reversed(records)]


async def test_operations_can_be_those_of_a_pool_or_the_open_ones(api, make):
    records = [make.operation(), make.operation(state="succeeded"), make.operation(pool="edge")]
    api.control.records = {one.op_id: one for one in records}

    async def listed(query):
        return {one["op_id"] for one in (await api.get(f"/api/v1/operations{query}", token="read")).json()["items"]}

    assert await listed("?open=1") == {records[0].op_id, records[2].op_id}
    assert await listed("?pool=edge") == {records[2].op_id}
    shown = await api.get(f"/api/v1/operations/{records[0].op_id}", token="read")
    assert shown.json()["op_id"] == records[0].op_id


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=1e3"])
async def test_a_limit_out_of_range_is_422(api, query):
    answer = await api.get(f"/api/v1/operations?{query}", token="read")
    assert (answer.status, problem(answer)["code"]) == (422, "QUERY_INVALID")


async def test_a_join_secret_is_for_the_service_scope(api, make):
    record = make.operation()
    api.control.records[record.op_id] = record
    answer = await api.post(f"/api/v1/operations/{record.op_id}/join", token="service")
    assert (answer.status, answer.json()["secret"]) == (200, "the-join-secret")


async def test_jobs_are_listed_shown_and_cancelled(api, make):
    record = make.job(state="running")
    api.control.job_records[record.op_id] = record
    assert (await api.get("/api/v1/jobs", token="read")).json()["items"][0]["op_id"] == record.op_id
    assert (await api.get(f"/api/v1/jobs/{record.op_id}", token="read")).json()["state"] == "running"
    answer = await api.post(f"/api/v1/jobs/{record.op_id}/cancel", token="operate")
    assert answer.json()["cancel_requested_at"] is not None
    assert (await api.get(f"/api/v1/jobs/{ids.new_op_id()}", token="read")).status == 404


class TestStatusCallback:
    secret = signing.new_secret()

    @pytest.fixture(autouse=True)
    def _secret(self, parts):
        parts.options["webhook_secrets"] = lambda: [self.secret]

    async def _send(self, api, record, *, op_id=None, secret=None, age=0):
        raw = record.encode()
        stamp = int(api.clock.now().timestamp()) - age
        headers = signing.headers(secret or self.secret, msg_id=record.op_id, timestamp=stamp, body=raw)
        headers["Content-Type"] = "application/json"
        return await api.post(f"/api/v1/operations/{op_id or record.op_id}/status", raw, headers=headers)

    async def test_a_signed_report_reaches_core(self, api, make):
        record = make.job(state="succeeded")
        answer = await self._send(api, record)
        assert (answer.status, answer.body) == (204, b"")
        assert api.control.calls == [("job_report", {"op_id": record.op_id, "record": record})]

    async def test_a_wrong_signature_an_old_one_or_none_is_401(self, api, make):
        record = make.job()
        unsigned = await api.post(f"/api/v1/operations/{record.op_id}/status", record.plain())
        assert problem(unsigned)["code"] == "SIGNATURE_MISSING"
        wrong = await self._send(api, record, secret=signing.new_secret())
        assert problem(wrong)["code"] == "SIGNATURE_INVALID"
        old = await self._send(api, record, age=301)
        assert problem(old)["code"] == "SIGNATURE_EXPIRED"
        assert {unsigned.status, wrong.status, old.status} == {401}
        assert api.control.calls == []

    async def test_a_report_about_another_operation_is_422(self, api, make):
        answer = await self._send(api, make.job(), op_id=ids.new_op_id())
        assert answer.status == 422
        assert api.control.calls == []


async def test_without_a_webhook_secret_no_report_is_believed(api, make):
    record = make.job()
    raw = record.encode()
    stamp = int(api.clock.now().timestamp())
    headers = signing.headers(signing.new_secret(), msg_id=record.op_id, timestamp=stamp, body=raw)
    answer = await api.post(
        f"/api/v1/operations/{record.op_id}/status", raw, headers={**headers, "Content-Type": "application/json"}
    )
    assert answer.status == 401


# ---------------------------------------------------------------- decisions


async def test_decisions_are_the_newest_of_a_pool_oldest_first(api, make):
    api.control.known_decisions = [
        make.decision(f"{number}", make.start + timedelta(minutes=number)) for number in range(5)
    ]
    body = (await api.get("/api/v1/decisions?pool=default&newest=2", token="read")).json()
    assert [one["sentence"] for one in body["items"]] == ["3", "4"]


# ---------------------------------------------------------------- store and lease


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Unavailable("no answer within 5 s"), 503, "STATE_UNAVAILABLE"),
        (NotLeader("epoch 8 leads"), 503, "NOT_LEADER"),
        (Conflict("op.X exists"), 409, "CHANGED_MEANWHILE"),
        (RuntimeError("a defect with the-join-secret in it"), 500, "INTERNAL"),
    ],
)
async def test_what_the_store_raises_becomes_an_answer_that_says_so(api, error, status, code):
    api.control.next_error = error
    answer = await api.post("/api/v1/pools/default/pause", token="operate")
    assert answer.status == status
    assert problem(answer)["code"] == code
    assert b"the-join-secret" not in answer.body
    if status == 503:
        assert answer.headers["Retry-After"] == "2"


async def test_without_the_lease_every_change_is_503_and_reads_go_on(api):
    api.control.leader = False
    answer = await api.post("/api/v1/pools/default/scale", {"size": 3}, token="operate")
    assert (answer.status, problem(answer)["code"]) == (503, "NOT_LEADER")
    original = await api.post(f"/api/v1/nodes/{api.add_node()}/terminate", token="operate")
    assert (original.status, original.body) == (503, b"")
    assert api.control.calls == []
    assert (await api.get("/api/v1/pools", token="read")).status == 200


async def test_an_unknown_path_of_ours_is_a_problem(api):
    answer = await api.get("/api/v2/anything", token="read")
    assert (answer.status, problem(answer)["code"]) == (404, "NOT_FOUND")


async def test_ready_names_what_is_missing(parts, api):
    assert (await api.get("/readyz")).json() == {"status": "ready"}


class TestNotReady:
    @pytest.fixture(autouse=True)
    def _checks(self, parts):
        parts.options["checks"] = lambda: {"nats": "NATS does not answer", "lease": None}

    async def test_it_is_503_and_names_what(self, api):
        answer = await api.get("/readyz")
        assert answer.status == 503
        assert answer.json()["checks"] == {"nats": "NATS does not answer", "lease": "ok"}
        assert (await api.get("/healthz")).status == 200


def test_the_problems_of_this_file_are_json():
    # Guards the helper above: a body that is not JSON must not pass for a problem.
    with pytest.raises(json.JSONDecodeError):
        json.loads("<html>")
