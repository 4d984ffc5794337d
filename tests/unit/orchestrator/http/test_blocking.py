"""The blocklist over HTTP: the original's answers to the byte where recorded, and ours beside them."""

from __future__ import annotations

import json
from ipaddress import ip_network

import pytest

from orchestrator.rules import Protected
from secbeat import ids
from secbeat.store import Unavailable
from secbeat.wire.rules import BlockedIps, BlockRequest, RulesSnapshot, decode_snapshot

BLOCK = {"ip": "203.0.113.7", "reason": "manual test", "ttl_seconds": 600}


async def test_an_empty_list_is_byte_for_byte_the_originals_but_for_key_order(api, recorded):
    answer = await api.get("/api/v1/rules/blocked_ips")
    assert answer.json() == json.loads(recorded("06_blocked_empty")[1])


async def test_a_block_answers_as_the_original_and_is_listed_as_the_original_lists_it(api, recorded):
    answer = await api.post("/api/v1/rules/block_ip", BLOCK)
    assert answer.status == 200
    body = answer.json()
    assert (body["success"], body["message"]) == (True, "IP 203.0.113.7 blocked successfully")
    assert ids.check_uuid(body["command_id"])
    listed = (await api.get("/api/v1/rules/blocked_ips")).json()
    original = json.loads(recorded("08_blocked_ips")[1])
    original["blocked_ips"][0][1]["blocked_at"] = listed["blocked_ips"][0][1]["blocked_at"]
    assert listed == original


async def test_without_ttl_it_is_the_originals_hour(api):
    await api.post("/api/v1/rules/block_ip", {"ip": "203.0.113.7", "reason": "x"})
    assert (await api.get("/api/v1/rules/blocked_ips")).json()["blocked_ips"][0][1]["ttl_seconds"] == 3600


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"ip": "not-an-ip", "reason": "x"}, 422),
        ({"ip": "0.0.0.0/0", "reason": "x"}, 422),
        ({"ip": "203.0.113.7"}, 422),
        ({"ip": "203.0.113.7", "reason": "x", "ttl_seconds": -1}, 422),
        ({"ip": "203.0.113.7", "reason": "x", "ttl_seconds": 0}, 422),
        ({"ip": "203.0.113.7", "reason": "x", "ttl_seconds": 2**63}, 422),
        ({"ip": "203.0.113.7", "reason": "x", "ttl_seconds": 1.5}, 422),
        ({"ip": "203.0.113.7", "reason": "x", "ttl_seconds": 60.0}, 422),
        ({"ip": "203.0.113.7", "reason": "x", "ttl_seconds": "60"}, 422),
        ({"ip": "203.0.113.7", "reason": "x", "ttl_seconds": True}, 422),
        ({"ip": "fe80::1%eth0", "reason": "x"}, 422),
        ({"ip": "203.0.113.7", "reason": "x", "metadata": "m" * 3000}, 422),
        (b"{", 400),
    ],
)
async def test_what_cannot_be_blocked_is_refused_with_the_originals_status(api, body, status):
    answer = await api.post("/api/v1/rules/block_ip", body, headers={"Content-Type": "application/json"})
    assert answer.status == status
    assert len(api.rules) == 0


async def test_a_form_that_a_web_page_could_send_is_415(api):
    answer = await api.post(
        "/api/v1/rules/block_ip", json.dumps(BLOCK).encode(), headers={"Content-Type": "text/plain"}
    )
    assert answer.status == 415


async def test_a_failure_of_the_store_is_a_200_that_says_so(api):
    await api.post("/api/v1/rules/block_ip", BLOCK)
    api.bucket.next_error = None
    api.rules._bucket.next_error = Unavailable("no answer within 5 s")
    answer = await api.post("/api/v1/rules/block_ip", {**BLOCK, "ip": "203.0.113.8"})
    assert answer.status == 200
    assert answer.json() == {
        "success": False,
        "message": "Failed to block IP 203.0.113.8: no answer within 5 s",
        "command_id": None,
    }
    assert len(api.rules) == 1


async def test_without_the_lease_a_block_fails_and_says_so(api):
    api.lease.lose()
    api.control.leader = False
    answer = await api.post("/api/v1/rules/block_ip", BLOCK)
    assert (answer.status, answer.json()["success"]) == (200, False)


async def test_unblocking_needs_a_token_and_removes(api):
    await api.post("/api/v1/rules/block_ip", BLOCK)
    assert (await api.call("DELETE", "/api/v1/rules/block_ip/203.0.113.7")).status == 401
    answer = await api.call("DELETE", "/api/v1/rules/block_ip/203.0.113.7", token="operate")
    assert (answer.status, answer.json()["success"]) == (200, True)
    again = await api.call("DELETE", "/api/v1/rules/block_ip/203.0.113.7", token="operate")
    assert again.status == 404


async def test_a_network_is_blocked_listed_and_unblocked_by_its_path(api):
    await api.post("/api/v1/rules/block_ip", {"ip": "203.0.113.9/24", "reason": "x"})
    assert (await api.get("/api/v1/rules/blocked_ips")).json()["blocked_ips"][0][0] == "203.0.113.0/24"
    for path in ("203.0.113.0/24", "203.0.113.0%2F24"):
        await api.post("/api/v1/rules/block_ip", {"ip": "203.0.113.0/24", "reason": "x"})
        assert (await api.call("DELETE", f"/api/v1/rules/block_ip/{path}", token="operate")).status == 200


async def test_a_token_names_who_blocked(api):
    await api.post("/api/v1/rules/block_ip", BLOCK, token="operate")
    assert (await api.get("/api/v1/rules/blocked_ips")).json()["blocked_ips"][0][1]["blocked_by"] == "the-operate"


async def test_a_node_follows_by_versions(api):
    complete = (await api.get("/api/v1/rules/snapshot")).json()
    assert (complete["complete"], complete["blocked"]) == (True, [])
    await api.post("/api/v1/rules/block_ip", BLOCK)
    delta = (await api.get(f"/api/v1/rules/snapshot?since={complete['version']}")).json()
    assert delta["complete"] is False
    assert [rule["ip"] for rule in delta["blocked"]] == ["203.0.113.7"]
    assert (await api.get("/api/v1/rules/snapshot?since=x")).status == 422


async def test_a_null_ttl_is_the_originals_hour_and_ten_years_are_the_longest(api):
    await api.post("/api/v1/rules/block_ip", {**BLOCK, "ttl_seconds": None})
    await api.post("/api/v1/rules/block_ip", {**BLOCK, "ip": "203.0.113.8", "ttl_seconds": 315_360_000})
    listed = dict((await api.get("/api/v1/rules/blocked_ips")).json()["blocked_ips"])
    assert {ip: info["ttl_seconds"] for ip, info in listed.items()} == {
        "203.0.113.7": 3600,
        "203.0.113.8": 315_360_000,
    }


async def test_of_two_ttls_on_one_address_the_longer_stands_whatever_the_order(api):
    for ttl in (60, 600, 60):
        await api.post("/api/v1/rules/block_ip", {**BLOCK, "ttl_seconds": ttl})
    ((_, entry),) = (await api.get("/api/v1/rules/blocked_ips")).json()["blocked_ips"]
    assert entry["ttl_seconds"] == 600


async def test_an_address_of_a_node_is_refused_with_code_cause_and_remedy(api):
    api.rules._protected = Protected([ip_network("203.0.113.0/24")])
    answer = await api.post("/api/v1/rules/block_ip", BLOCK)
    assert (answer.status, answer.json()["success"], answer.json()["command_id"]) == (200, False, None)
    message = answer.json()["message"]
    assert message.startswith("Failed to block IP 203.0.113.7: RULE_PROTECTED: ")
    assert "203.0.113.0/24" in message
    assert "never_block" in message
    assert len(api.rules) == 0


async def test_an_unblock_says_which_wider_entry_still_blocks(api):
    await api.post("/api/v1/rules/block_ip", BLOCK)
    await api.post("/api/v1/rules/block_ip", {"ip": "203.0.113.0/24", "reason": "x"})
    first = await api.call("DELETE", "/api/v1/rules/block_ip/203.0.113.7", token="operate")
    assert first.json()["message"] == "IP 203.0.113.7 unblocked; 203.0.113.0/24 still blocks it"
    second = await api.call("DELETE", "/api/v1/rules/block_ip/203.0.113.7", token="operate")
    assert second.status == 404
    assert second.json()["fix"] == "DELETE /api/v1/rules/block_ip/203.0.113.0/24"


class TestALongList:
    @pytest.fixture(autouse=True)
    async def _filled(self, api):
        for number in range(1300):
            request = BlockRequest(
                ip=f"10.0.{number // 250}.{number % 250}", reason='a "reason"', metadata={"n": number}
            )
            await api.rules.block(request, by="alice")

    async def test_without_a_question_it_comes_whole_in_the_originals_form(self, api):
        shown = (await api.get("/api/v1/rules/blocked_ips")).json()
        assert len(dict(shown["blocked_ips"])) == 1300
        assert shown["stats"] == {"total_blocked_ips": 1300, "manual_blocks": 1300, "auto_blocks": 0}
        assert list(shown["blocked_ips"][700][1]) == ["blocked_at", "blocked_by", "metadata", "reason", "ttl_seconds"]
        BlockedIps.model_validate(shown)

    async def test_pages_show_each_entry_once(self, api):
        path, seen = "/api/v1/rules/blocked_ips?limit=400", []
        while path:
            answer = await api.get(path)
            seen += [ip for ip, _ in answer.json()["blocked_ips"]]
            assert answer.json()["stats"]["total_blocked_ips"] == 1300
            path = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
        assert len(seen) == len(set(seen)) == 1300

    async def test_a_filter_finds_what_overlaps_a_network(self, api):
        await api.rules.block(BlockRequest(ip="10.0.0.0/16", reason="wide"), by="alice")
        shown = (await api.get("/api/v1/rules/blocked_ips?within=10.0.0.0/30")).json()
        assert {ip for ip, _ in shown["blocked_ips"]} == {"10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.0/16"}
        assert (await api.get("/api/v1/rules/blocked_ips?within=x")).status == 422
        assert (await api.get("/api/v1/rules/blocked_ips?after=x")).status == 422

    async def test_the_snapshot_is_what_a_node_reads(self, api):
        answer = await api.get("/api/v1/rules/snapshot")
        snapshot = RulesSnapshot.model_validate(answer.json())
        assert (snapshot.complete, snapshot.version, len({rule.ip for rule in snapshot.blocked})) == (True, 1300, 1300)
        frame = decode_snapshot(json.dumps(answer.json()).encode())
        assert [(rule.ip, rule.expires_at) for rule in frame.blocked] == [
            (rule.ip, rule.expires_at) for rule in snapshot.blocked
        ]


async def test_a_list_that_has_not_been_read_is_503_and_not_empty(api):
    api.lease.lose()
    for path in ("rules/snapshot", "rules/snapshot?since=0", "rules/blocked_ips"):
        answer = await api.get(f"/api/v1/{path}")
        assert answer.status == 503, path


class TestASnapshotFromBeyondLoopback:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, parts, monkeypatch):
        monkeypatch.setattr("secbeat.api.guarding.is_loopback", lambda address: False)
        # The fixture's tokens end in "-token", so a node's are told apart from API tokens.
        parts.options["node_token"] = lambda node_id: f"management-of-{node_id}-token"

    async def _status(self, api, token):
        return (await api.get("/api/v1/rules/snapshot", token=token)).status

    async def test_it_needs_a_token_that_reads(self, api):
        assert await self._status(api, None) == 401
        assert await self._status(api, "wrong") == 401
        assert await self._status(api, "service") == 401
        assert await self._status(api, "read") == 200

    async def test_a_node_reads_with_its_own_management_token_for_as_long_as_it_is_known(self, api):
        node_id = api.add_node(legacy=False)
        assert await self._status(api, f"management-of-{node_id}") == 200
        later = api.add_node(legacy=False)
        assert await self._status(api, f"management-of-{later}") == 200
        api.registry.drop(node_id)
        assert await self._status(api, f"management-of-{node_id}") == 401

    async def test_an_original_node_and_one_that_is_not_known_have_no_token(self, api):
        assert await self._status(api, f"management-of-{api.add_node(legacy=True)}") == 401
        assert await self._status(api, f"management-of-{ids.new_node_id()}") == 401

    async def test_a_management_token_opens_nothing_else(self, api):
        token = f"management-of-{api.add_node(legacy=False)}"
        for path in ("rules/blocked_ips", "nodes", "pools", "audit"):
            assert (await api.get(f"/api/v1/{path}", token=token)).status == 401, path
