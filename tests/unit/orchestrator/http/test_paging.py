"""Long lists: pages with a cursor that stays good while things come and go, and filters."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from orchestrator.http.examples import EXAMPLES
from orchestrator.http.paging import Moment, before
from secbeat import ids
from secbeat.wire.events import AuditEvent


async def pages(api, path, *, between=lambda: None, token="read"):
    """All items of all pages, by the Link header; ``between`` runs after each page."""
    found = []
    while path:
        answer = await api.get(path, token=token)
        assert answer.status == 200, answer.body
        body = answer.json()
        found.append(body if isinstance(body, list) else body["items"])
        link = answer.headers.get("Link")
        assert isinstance(body, list) or (body["next"] is None) == (link is None)
        path = re.fullmatch(r'<(\S+)>; rel="next"', link)[1] if link else None
        between()
    return found


# ---------------------------------------------------------------- nodes


async def test_nodes_come_in_pages_each_once_in_the_order_of_their_ids(api):
    known = {api.add_node() for _ in range(25)}
    found = await pages(api, "/api/v1/nodes?limit=10")
    assert [len(page) for page in found] == [10, 10, 5]
    listed = [node["node_id"] for page in found for node in page]
    assert listed == sorted(known)


async def test_a_page_of_nodes_is_the_originals_bare_array(api):
    api.add_node()
    whole, page = (await api.get("/api/v1/nodes")).json(), (await api.get("/api/v1/nodes?limit=5")).json()
    assert page == whole


async def test_a_cursor_stays_good_while_nodes_come_and_go(api):
    known = sorted(api.add_node() for _ in range(30))
    gone, came = [], []

    def change():
        for node_id in (known[0], known[11]):
            gone.append(node_id)
            api.registry.drop(node_id)
        came.append(api.add_node())

    found = [node["node_id"] for page in await pages(api, "/api/v1/nodes?limit=7", between=change) for node in page]
    assert found == sorted(found)
    assert len(found) == len(set(found))
    assert set(known) - set(gone) <= set(found) <= set(known) | set(came)


async def test_a_node_that_leaves_and_comes_again_is_listed_once(api, make):
    known = [api.add_node() for _ in range(3)]
    await api.get("/api/v1/nodes?limit=1")
    api.registry.drop(known[0])
    api.registry.put(make.node_record(known[0]))
    found = [node["node_id"] for page in await pages(api, "/api/v1/nodes?limit=1") for node in page]
    assert found == sorted(known)


async def test_nodes_are_filtered_by_pool_and_state_in_pages_and_whole(api, make):
    api.control.views["web"] = make.pool_view("web")
    wanted = {api.add_node(pool="web", state="draining") for _ in range(3)}
    for fields in ({"pool": "web"}, {"state": "draining"}, {"pool": "web", "state": "failed"}):
        api.add_node(**fields)
    for path in ("/api/v1/nodes?pool=web&state=draining", "/api/v1/nodes?pool=web&state=draining&limit=2"):
        assert {node["node_id"] for page in await pages(api, path) for node in page} == wanted
    both = (await api.get("/api/v1/nodes?state=draining,failed")).json()
    assert sorted(node["state"] for node in both) == ["draining"] * 4 + ["failed"]


async def test_a_state_that_is_asked_for_is_shown_although_it_is_not_listed_else(api):
    booting = api.add_node(state="booting")
    assert (await api.get("/api/v1/nodes")).json() == []
    assert (await api.get("/api/v1/nodes?limit=5")).json() == []
    for path in ("/api/v1/nodes?state=booting", "/api/v1/nodes?state=booting&limit=5", "/api/v1/nodes?all=1&limit=5"):
        assert [node["node_id"] for node in (await api.get(path)).json()] == [booting]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "state=asleep", "pool=" + "x" * 27, "all=maybe"])
async def test_a_wrong_parameter_of_the_originals_route_is_422_with_a_line_of_text(api, query):
    answer = await api.get(f"/api/v1/nodes?{query}")
    assert answer.status == 422
    assert query.partition("=")[0] in answer.body.decode()


# ---------------------------------------------------------------- operations, jobs


@pytest.mark.parametrize(("path", "kept"), [("operations", "records"), ("jobs", "job_records")])
async def test_operations_and_jobs_are_filtered_and_paged(api, make, path, kept):
    maker = make.operation if path == "operations" else make.job
    start, node = make.start, ids.new_node_id()
    extra = {"updated_at": start} if path == "operations" else {}
    made = [
        maker(
            pool="web" if number % 2 else "api",
            action="destroy" if number % 3 else "create",
            state="failed" if number % 4 else "succeeded",
            node_id=node if number == 5 else ids.new_node_id(),
            created_at=start + timedelta(minutes=number),
            **extra,
        )
        for number in range(12)
    ]
    getattr(api.control, kept).update({one.op_id: one for one in made})

    async def found(query):
        return {one["op_id"] for page in await pages(api, f"/api/v1/{path}?limit=2&{query}") for one in page}

    def those(wanted):
        return {one.op_id for number, one in enumerate(made) if wanted(number)}

    assert await found("pool=web") == those(lambda n: n % 2)
    assert await found("action=create") == those(lambda n: n % 3 == 0)
    assert await found("state=failed") == those(lambda n: n % 4)
    assert await found("state=failed,succeeded") == those(lambda _: True)
    assert await found(f"node={node}") == {made[5].op_id}
    assert await found("since=2026-11-25T03:09:00Z") == those(lambda n: n >= 9)
    assert await found("open=1") == set()


# ---------------------------------------------------------------- decisions, audit


async def test_decisions_go_back_in_pages_and_new_ones_disturb_no_cursor(api, make):
    # Three in each millisecond: a cursor that knew only the time would lose or repeat some.
    api.control.known_decisions = [
        make.decision(str(number), make.start + timedelta(milliseconds=number // 3)) for number in range(20)
    ]

    def another():
        at = make.start + timedelta(milliseconds=50 + len(api.control.known_decisions))
        api.control.known_decisions.append(make.decision("new", at))

    found = await pages(api, "/api/v1/decisions?limit=6", between=another)
    assert [[one["sentence"] for one in page] for page in found] == [
        [str(n) for n in range(14, 20)], [str(n) for n in range(8, 14)], [str(n) for n in range(2, 8)], ["0", "1"],
    ]  # fmt: skip


async def test_decisions_are_filtered_by_direction_and_time(api, make):
    api.control.known_decisions = [
        make.decision(str(n), make.start + timedelta(minutes=n), direction="up" if n % 2 else "hold") for n in range(8)
    ]
    found = (await api.get("/api/v1/decisions?direction=up&since=2026-11-25T03:04:00Z", token="read")).json()
    assert [one["sentence"] for one in found["items"]] == ["5", "7"]


async def test_the_audit_goes_back_in_pages_as_far_as_the_ledger_does(api):
    for number in range(1500):
        what = f"POST /{number}"
        who = "alice" if number % 100 == 0 else "bob"
        status = 409 if number % 500 == 0 else 200
        api.audit.add(AuditEvent(at=api.clock.now(), who=who, scope="operate", what=what, status=status))
        await api.clock.advance(0.0004)
    found = [one["what"] for page in reversed(await pages(api, "/api/v1/audit?limit=400")) for one in page]
    assert found == [f"POST /{number}" for number in range(1500)]
    by_alice = await pages(api, "/api/v1/audit?limit=4&who=alice")
    assert [one["what"] for one in by_alice[-1]] == [f"POST /{n}" for n in (0, 100, 200)]
    (refused,) = await pages(api, "/api/v1/audit?refused=1")
    assert [one["what"] for one in refused] == ["POST /0", "POST /500", "POST /1000"]


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1", "1-x", "1-1-1", "9" * 30])
async def test_a_cursor_that_no_page_gave_is_refused(api, cursor):
    for path in ("decisions", "audit"):
        assert (await api.get(f"/api/v1/{path}?after={cursor}", token="read")).status == 422


def test_a_page_before_a_moment_counts_what_is_of_the_same_millisecond(make):
    records = [make.decision(str(n), make.start) for n in range(5)]
    items, cursor = before(records, lambda one: one.at, limit=2, cursor=None)
    assert [one.sentence for one in items] == ["3", "4"]
    assert Moment.read(str(cursor)) == cursor
    # Two more of the same millisecond came meanwhile.
    records += [make.decision("new", make.start)] * 2
    items, cursor = before(records, lambda one: one.at, limit=2, cursor=cursor)
    assert [one.sentence for one in items] == ["1", "2"]
    items, cursor = before(records, lambda one: one.at, limit=2, cursor=cursor)
    assert ([one.sentence for one in items], cursor) == (["0"], None)


# ---------------------------------------------------------------- examples


@pytest.mark.parametrize("model", EXAMPLES, ids=lambda model: model.__name__)
def test_each_example_is_one_of_its_model(model):
    model.model_validate(EXAMPLES[model])


async def test_each_body_and_answer_of_the_document_has_an_example(api):
    schemas = api.document["components"]["schemas"]
    without = {"Health", "Readiness", "FleetStats", "DashboardSummary", "OriginalHealth", "StreamedEvent"}
    named = set()
    for methods in api.document["paths"].values():
        for operation in methods.values():
            contents = [operation.get("requestBody", {}), operation["responses"][min(operation["responses"])]]
            for content in contents:
                for media in content.get("content", {}).values():
                    named.add(media["schema"].get("$ref", "").rpartition("/")[2])
    lists = {name for name in named if name.startswith("Page_")}
    for name in named - lists - without - {""}:
        assert schemas[name].get("examples"), name
