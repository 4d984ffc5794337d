"""Query parameters: what is taken, what is refused with a sentence, and what the document says of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import aiohttp
import pytest
import pytest_asyncio
from openapi_spec_validator import OpenAPIV31SpecValidator

from secbeat.api import Parameter, Route, asked, build_app, choices, flag, integer, listen, openapi, reply

QUERY = {
    "text": Parameter("A text", high=5),
    "count": integer("A number", low=1, high=10, default=3),
    "yes": flag("A flag"),
    "at": Parameter("A time", "moment"),
    "one": choices("Some", "red", "green"),
}


async def show(request):
    found = {name: asked(request, name) for name in QUERY}
    return reply({key: sorted(value) if isinstance(value, frozenset) else str(value) for key, value in found.items()})


ROUTES = [
    Route(method="GET", path="/ours", handler=show, summary="Ours", scope=None, query=QUERY, response=dict),
    Route(method="GET", path="/old", handler=show, summary="Old", scope=None, query=QUERY, legacy=True),
]


@pytest_asyncio.fixture
async def get():
    listener = await listen(build_app("test", ROUTES, tokens=lambda _token: None), "127.0.0.1:0", shutdown_timeout=0.2)
    async with aiohttp.ClientSession() as session:

        async def call(path, **headers):
            async with session.get(listener.url + path, headers=headers) as answer:
                text = await answer.text()
                return answer.status, json.loads(text) if text.startswith("{") else text, answer.headers

        yield call
    await listener.close()


async def test_what_is_absent_has_its_default(get):
    assert (await get("/ours"))[1] == {"text": "None", "count": "3", "yes": "False", "at": "None", "one": "None"}


async def test_what_is_given_is_read(get):
    _, body, _ = await get("/ours?text=abc&count=7&yes&at=2026-11-25T03:00:00%2B02:00&one=green,red")
    assert body["one"] == ["green", "red"]
    assert (body["text"], body["count"], body["yes"]) == ("abc", "7", "True")
    assert body["at"] == str(datetime(2026, 11, 25, 1, tzinfo=UTC))


@pytest.mark.parametrize("value", ["1", "true", "yes", "True", ""])
async def test_a_flag_is_set_by_every_word_for_yes(get, value):
    assert (await get(f"/ours?yes={value}"))[1]["yes"] == "True"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("count=0", "count is '0'; it must be a number from 1 to 10"),
        ("count=11", "from 1 to 10"),
        ("count=x", "from 1 to 10"),
        ("count=٣", "from 1 to 10"),
        ("count=" + "1" * 5000, "from 1 to 10"),
        ("yes=maybe", "yes is 'maybe'; it must be 1 or 0"),
        ("at=yesterday", "it must be like 2026-11-25T03:00:00Z"),
        ("at=9999-99-99T00:00:00Z", "it must be like"),
        ("one=blue", "one or several of red, green"),
        ("one=red,", "one or several of red, green"),
        ("text=", "text of 1 to 5 characters"),
        ("text=abcdef", "text of 1 to 5 characters"),
        ("text=%00", "text of 1 to 5 characters"),
        ("count=1&count=2", "count is given twice"),
        ("cuont=5", "'cuont' is no parameter here; there are: text, count, yes, at, one"),
    ],
)
async def test_what_is_wrong_is_refused_with_a_sentence(get, query, sentence):
    status, body, _ = await get(f"/ours?{query}")
    assert (status, body["code"]) == (422, "QUERY_INVALID")
    assert sentence in body["detail"]


async def test_the_originals_routes_ignore_what_they_do_not_know(get):
    assert (await get("/old?cuont=5"))[0] == 200
    assert (await get("/old?count=x"))[0] == 422


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
async def test_the_ends_of_time_are_no_failure(get, at):
    status, _, _ = await get(f"/ours?at={at.replace('+', '%2B')}")
    assert status in {200, 422}


def test_the_document_has_their_types_limits_and_defaults():
    doc = openapi.document("test", ROUTES)
    OpenAPIV31SpecValidator(doc).validate()
    schemas = {one["name"]: one["schema"] for one in doc["paths"]["/ours"]["get"]["parameters"]}
    assert schemas["count"] == {"type": "integer", "minimum": 1, "maximum": 10, "default": 3}
    assert schemas["one"]["items"]["enum"] == ["red", "green"]
    assert schemas["text"]["maxLength"] == 5
    assert schemas["at"]["format"] == "date-time"


async def test_an_answer_that_is_known_is_not_sent_again(get):
    status, body, headers = await get("/ours")
    assert (status, bool(body)) == (200, True)
    tag = headers["ETag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again, empty, kept = await get("/ours", **{"If-None-Match": known})
        assert (again, empty, kept["ETag"]) == (304, "", tag)
    assert (await get("/ours", **{"If-None-Match": '"other"'}))[0] == 200
    assert (await get("/ours?count=4", **{"If-None-Match": tag}))[0] == 200
    assert "ETag" not in (await get("/old"))[2]
