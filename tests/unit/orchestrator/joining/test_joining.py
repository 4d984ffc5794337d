"""Joining: one-use secrets, re-joins, the original's form, adoption."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.testing import REGISTRATION, FakeNode, world
from secbeat import ids
from secbeat.auth import derive_token
from secbeat.errors import AuthError, RefusedError, UnreachableError
from secbeat.testing import settle
from secbeat.wire.registration import RegisterRequest

CALL = {"peer": "127.0.0.1", "host": "127.0.0.1:3030", "token": None}


async def booting(w):
    """A create operation whose machine has not joined, and the process that will."""
    w.auto_join = False
    await settle()
    (op,) = w.operations()
    return op, FakeNode(op.node_id, ids.new_boot_id(), "default")


async def test_a_join_gets_the_derived_token_and_makes_the_node_joining():
    w = world()
    w.auto_join = False
    async with w:
        op, node = await booting(w)
        secret = await w.core.join_secret(op.op_id)
        answer = await w.register(node, op.op_id, secret.secret)
        token = answer.credentials.management_token.get_secret_value()
        assert token == derive_token(b"k" * 32, "management", node.node_id)
        assert (answer.node_id, answer.heartbeat_interval, answer.heartbeat_interval_seconds) == (node.node_id, 5, 5.0)
        assert answer.endpoints.heartbeat_url == "http://127.0.0.1:3030/api/v1/nodes/heartbeat"
        assert answer.credentials.nats_jwt is None
        assert w.states() == ["joining"]


async def test_only_a_hash_of_the_secret_is_stored():
    w = world()
    w.auto_join = False
    async with w:
        op, _ = await booting(w)
        secret = await w.core.join_secret(op.op_id)
        assert secret.secret.get_secret_value().encode() not in w.stored.data[f"join.{op.op_id}"]


@pytest.mark.parametrize("what", ["secret", "node_id", "op_id", "no_op_id"])
async def test_a_join_with_anything_wrong_gets_nothing(what):
    w = world()
    w.auto_join = False
    async with w:
        op, node = await booting(w)
        secret = await w.core.join_secret(op.op_id)
        op_id = {"op_id": ids.new_op_id(), "no_op_id": None}.get(what, op.op_id)
        if what == "node_id":
            node.node_id = ids.new_node_id()
        if what == "secret":
            secret = secret.model_copy(update={"secret": type(secret.secret)("wrong")})
        with pytest.raises(AuthError) as refused:
            await w.register(node, op_id, secret.secret)
        assert refused.value.code == "JOIN_SECRET_WRONG"
        assert w.states() == ["booting"]
        assert not w.core.operations("default")[0].ended


async def test_a_second_use_alarms_and_removes_the_node_that_used_it():
    async with world() as w:
        (op,) = w.operations()
        await w.until(lambda: len(w.active()) == 1, within=10)
        secret = (await w.core.secrets.issue(op.op_id, op.node_id, now=w.clock.now(), ttl_seconds=900))[0]
        first = w.nodes.all[op.node_id]
        from pydantic import SecretStr

        await w.register(first, op.op_id, SecretStr(secret))
        thief = FakeNode(op.node_id, ids.new_boot_id(), "default")
        with pytest.raises(AuthError) as refused:
            await w.register(thief, op.op_id, SecretStr(secret), peer="127.0.0.66")
        assert refused.value.code == "JOIN_REUSED"
        assert "127.0.0.66" in w.audited[0].what
        assert any(b"join.reused" in event.payload for event in w.core.context.events.newest(50))
        (destroy,) = w.operations("destroy")
        assert (destroy.node_id, destroy.reason) == (op.node_id, "JOIN_SECRET_REUSED")
        token = derive_token(b"k" * 32, "management", op.node_id)
        with pytest.raises(RefusedError) as revoked:
            await w.register(first, op.op_id, None, token=token)
        assert revoked.value.code == "NODE_GONE"
        await w.until(lambda: w.core.operation(destroy.op_id).ended and len(w.active()) == 1, within=60)
        assert w.active() != [op.node_id]


async def test_the_same_process_that_lost_our_answer_may_ask_again():
    w = world()
    w.auto_join = False
    async with w:
        op, node = await booting(w)
        secret = (await w.core.join_secret(op.op_id)).secret
        one = await w.register(node, op.op_id, secret)
        two = await w.register(node, op.op_id, secret)
        assert one.credentials.management_token == two.credentials.management_token
        assert not w.audited


async def test_of_two_at_once_one_joins():
    w = world()
    w.auto_join = False
    async with w:
        op, node = await booting(w)
        secret = (await w.core.join_secret(op.op_id)).secret
        thief = FakeNode(op.node_id, ids.new_boot_id(), "default")
        results = await asyncio.gather(
            w.register(node, op.op_id, secret), w.register(thief, op.op_id, secret), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["AuthError", "RegisterResponse"]


async def test_a_secret_expires_and_a_fresh_one_ends_the_earlier():
    w = world(join_secret_ttl_seconds=60)
    w.auto_join = False
    async with w:
        op, node = await booting(w)
        old = (await w.core.join_secret(op.op_id)).secret
        fresh = (await w.core.join_secret(op.op_id)).secret
        with pytest.raises(AuthError) as refused:
            await w.register(node, op.op_id, old)
        assert refused.value.code == "JOIN_SECRET_WRONG"
        await w.clock.advance(61)
        with pytest.raises(AuthError) as late:
            await w.register(node, op.op_id, fresh)
        assert late.value.code == "JOIN_EXPIRED"


async def test_no_secret_is_made_for_an_operation_that_ended():
    async with world() as w:
        await w.until(lambda: w.operations()[0].ended, within=10)
        with pytest.raises(RefusedError):
            await w.core.join_secret(w.operations()[0].op_id)


async def test_a_node_re_joins_with_its_token_after_a_restart_of_either_side():
    async with world() as w:
        await w.until(lambda: len(w.active()) == 1, within=10)
        node_id = w.active()[0]
        await w.restart()
        anew = FakeNode(node_id, ids.new_boot_id(), "default")
        token = derive_token(b"k" * 32, "management", node_id)
        answer = await w.register(anew, None, None, token=token)
        assert answer.credentials is not None
        assert w.active() == [node_id]
        assert w.core.context.records.node(node_id).boot_id == anew.boot_id


async def test_a_token_of_another_node_is_refused():
    async with world(pool={"min": 2}) as w:
        await w.until(lambda: len(w.active()) == 2, within=10)
        one, two = w.active()
        with pytest.raises(AuthError):
            await w.register(w.nodes.all[one], None, None, token=derive_token(b"k" * 32, "management", two))


async def test_a_node_whose_record_was_lost_is_known_again_by_its_token():
    async with world(pool={"min": 0}) as w:
        node = FakeNode(ids.new_node_id(), ids.new_boot_id(), "default")
        token = derive_token(b"k" * 32, "management", node.node_id)
        await w.register(node, None, None, token=token)
        w.beat(node)
        await settle()
        assert w.active() == [node.node_id]


async def test_a_destroyed_nodes_token_brings_it_back_never():
    async with world(pool={"min": 0}) as w:
        await w.core.executor.issuing.create("default", reason="MANUAL", by="test")
        await w.until(lambda: len(w.active()) == 1, within=10)
        node_id = w.active()[0]
        await w.core.drain(node_id, reason="MANUAL", by="x")
        await w.until(lambda: w.states() == [], within=60)
        token = derive_token(b"k" * 32, "management", node_id)
        with pytest.raises(RefusedError) as refused:
            await w.register(w.nodes.all[node_id], None, None, token=token)
        assert refused.value.code == "NODE_GONE"
        assert await w.core.adopt(node_id, peer="127.0.0.1") is False


async def test_a_registration_without_a_secret_gets_nothing_outside_legacy_nodes():
    async with world(pool={"min": 0}) as w:
        request = RegisterRequest.model_validate(REGISTRATION)
        with pytest.raises(AuthError) as refused:
            await w.core.register(request, **{**CALL, "peer": "10.0.0.9"})
        assert (refused.value.code, refused.value.status) == ("LEGACY_REFUSED", 403)
        node = FakeNode(ids.new_node_id(), ids.new_boot_id(), "default")
        with pytest.raises(AuthError):
            await w.register(node, None, None, peer="10.0.0.9")
        assert w.states() == []


async def test_an_original_node_registers_from_loopback_and_gets_no_generated_secret():
    async with world(pool={"min": 0}) as w:
        answer = await w.core.register(RegisterRequest.model_validate(REGISTRATION), **CALL)
        assert answer.credentials is None
        record = w.core.context.records.node(answer.node_id)
        assert (record.legacy, record.state, record.management_host) == (True, "joining", "127.0.0.1")
        assert w.core.context.target(record).token == "legacy-token"


async def test_a_loopback_public_ip_from_elsewhere_becomes_the_peers_address():
    async with world(pool={"min": 0}, legacy_nodes=["10.0.0.0/8"]) as w:
        answer = await w.core.register(RegisterRequest.model_validate(REGISTRATION), **{**CALL, "peer": "10.1.2.3"})
        assert w.core.context.records.node(answer.node_id).public_ip == "10.1.2.3"


async def test_an_original_node_claims_the_oldest_untracked_create_of_its_pool():
    w = world(pool={"min": 2})
    w.receiver.manner = "untracked"
    async with w:
        oldest, other = w.operations("create")
        answer = await w.core.register(RegisterRequest.model_validate(REGISTRATION), **CALL)
        assert answer.node_id == oldest.node_id
        node = FakeNode(answer.node_id, ids.new_boot_id(), "default")
        w.nodes.all[node.node_id] = node
        w.beat(node)
        await settle()
        assert w.core.operation(oldest.op_id).state == "succeeded"
        assert w.core.operation(other.op_id).state == "booting"
        assert len(w.receiver.calls) == 2


async def test_two_original_nodes_at_once_claim_two_operations():
    w = world(pool={"min": 2})
    w.receiver.manner = "untracked"
    async with w:
        request = RegisterRequest.model_validate(REGISTRATION)
        answers = await asyncio.gather(w.core.register(request, **CALL), w.core.register(request, **CALL))
        assert {answer.node_id for answer in answers} == {op.node_id for op in w.operations("create")}


async def test_a_tracked_create_is_never_claimed():
    w = world()
    w.auto_join = False
    async with w:
        answer = await w.core.register(RegisterRequest.model_validate(REGISTRATION), **CALL)
        assert answer.node_id != w.operations()[0].node_id


async def test_an_original_node_is_terminated_with_the_three_fields_of_the_original():
    async with world(pool={"min": 0}) as w:
        answer = await w.core.register(RegisterRequest.model_validate(REGISTRATION), **CALL)
        node = FakeNode(answer.node_id, ids.new_boot_id(), "default")
        w.nodes.all[node.node_id] = node
        w.beat(node)
        await settle()
        destroy = await w.core.drain(node.node_id, reason="MANUAL", by="x")
        await settle()
        request = w.nodes.terminated[0][1]
        assert (request.node_id, request.boot_id, request.epoch) == (None, None, None)
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=60)
        assert not w.receiver.calls, "nobody made this machine, so nobody is asked to destroy it"


async def test_a_silent_original_node_started_anew_is_the_same_node():
    async with world(pool={"min": 0}) as w:
        request = RegisterRequest.model_validate(REGISTRATION)
        first = await w.core.register(request, **CALL)
        node = FakeNode(first.node_id, ids.new_boot_id(), "default")
        w.beat(node)
        await w.clock.advance(1)
        other = await w.core.register(request, **CALL)
        assert other.node_id != first.node_id, "the first one is alive"
        w.core.registry.drop(other.node_id)
        await w.clock.advance(181)
        again = await w.core.register(request, **CALL)
        assert again.node_id == first.node_id


async def told_to_go(w):
    """A node of the original, whose port answers, and which has been told to go."""
    first = await w.core.register(RegisterRequest.model_validate(REGISTRATION), **CALL)
    node = FakeNode(first.node_id, ids.new_boot_id(), "default", drain_seconds=10_000)
    w.nodes.all[node.node_id] = node
    w.beat(node)
    await settle()
    await w.core.drain(node.node_id, reason="MANUAL", by="x")
    await settle()
    return node


async def test_an_original_node_restarted_by_its_supervisor_while_it_should_go_keeps_its_identity():
    async with world(pool={"min": 0}) as w:
        node = await told_to_go(w)
        node.beating = False
        again = await w.core.register(RegisterRequest.model_validate(REGISTRATION), **CALL)
        assert again.node_id == node.node_id
        assert w.states() == ["draining"]
        elsewhere = await w.core.register(RegisterRequest.model_validate(REGISTRATION), **{**CALL, "peer": "127.0.0.2"})
        assert elsewhere.node_id != node.node_id


@pytest.mark.parametrize("status", ["Draining", "Terminating"])
async def test_a_node_beside_one_that_drains_as_it_should_is_a_node_of_its_own(status):
    async with world(pool={"min": 0}) as w:
        node = await told_to_go(w)
        w.beat(node, status)
        other = await w.core.register(RegisterRequest.model_validate(REGISTRATION), **CALL)
        assert other.node_id != node.node_id


async def test_an_original_node_that_crashes_over_and_over_drives_no_other_node_out():
    request = RegisterRequest.model_validate(REGISTRATION)
    async with world(pool={"min": 3, "max": 5, "warmup_seconds": 0, "scale_down_cooldown_seconds": 0}) as w:
        await w.until(lambda: len(w.active()) == 3)
        w.load(0.5)
        serving = set(w.active())
        for _ in range(120):
            answer = await w.core.register(request, **CALL)
            assert w.states().count("joining") <= 2
            await w.clock.advance(5)
        assert set(w.active()) == serving
        assert w.nodes.terminated == []
        # At last it runs, and the port that its failures had is its own: nothing is left of them.
        for one in w.core.registry.nodes():
            w.nodes.all.setdefault(one.node_id, FakeNode(one.node_id, ids.new_boot_id(), "default", beating=False))
        node = w.nodes.all[answer.node_id]
        node.beating = True
        w.beat(node)
        await w.clock.advance(400)
        assert set(w.active()) == serving | {node.node_id}
        assert w.states() == ["active"] * 4


async def test_two_original_nodes_of_one_address_are_two_before_their_first_heartbeat():
    async with world(pool={"min": 0}) as w:
        request = RegisterRequest.model_validate(REGISTRATION)
        first = await w.core.register(request, **CALL)
        await w.clock.advance(60)
        second = await w.core.register(request, **CALL)
        assert first.node_id != second.node_id
        await w.clock.advance(31)
        third = await w.core.register(request, **CALL)
        assert {node.node_id for node in w.core.registry.nodes()} == {second.node_id, third.node_id}


async def test_after_our_restart_a_node_that_has_not_beaten_yet_is_not_taken_for_another():
    async with world(pool={"min": 0}) as w:
        request = RegisterRequest.model_validate(REGISTRATION)
        first = await w.core.register(request, **CALL)
        w.beat(FakeNode(first.node_id, ids.new_boot_id(), "default"))
        await w.clock.advance(120)
        await w.restart()
        assert (await w.core.register(request, **CALL)).node_id != first.node_id


async def test_an_unknown_beating_node_is_adopted_from_legacy_nodes_only():
    async with world(pool={"min": 0}) as w:
        node_id = ids.new_node_id()
        assert await w.core.adopt(node_id, peer="10.0.0.1") is False
        assert await w.core.adopt(node_id, peer="127.0.0.1") is True
        assert await w.core.adopt(node_id, peer="127.0.0.1") is True
        assert w.states() == ["joining"]


async def test_a_node_by_hand_joins_with_its_file_and_no_webhook_is_ever_sent_for_it():
    async with world(pool={"min": 0}) as w:
        file = await w.core.new_node("default", server_url="http://127.0.0.1:3030", by="admin")
        node = FakeNode(file.node_id, ids.new_boot_id(), "default")
        await w.register(node, file.op_id, file.secret)
        w.nodes.all[node.node_id] = node
        w.beat(node)
        await settle()
        assert w.core.operation(file.op_id).state == "succeeded"
        destroy = await w.core.drain(node.node_id, reason="MANUAL", by="admin")
        await w.until(lambda: w.core.operation(destroy.op_id).ended, within=60)
        assert w.core.operation(destroy.op_id).state == "succeeded"
        assert (w.receiver.calls, w.states()) == ([], [])


async def test_a_join_file_never_used_expires_without_a_trace_in_the_breaker():
    async with world(pool={"min": 0, "boot_deadline_seconds": 60}) as w:
        await w.core.new_node("default", server_url="http://127.0.0.1:3030", by="admin")
        await w.clock.advance(70)
        assert (w.states(), w.receiver.calls) == ([], [])
        assert w.core.pool("default").breaker.failures == 0


async def test_retiring_the_pool_does_not_wait_for_a_node_that_nobody_has_started():
    async with world(pool={"min": 0}) as w:
        file = await w.core.new_node("default", server_url="http://127.0.0.1:3030", by="admin")
        await settle()
        await w.core.retire("default", by="admin")
        await w.until(lambda: w.core.operation(file.op_id).ended, within=5)
        assert w.core.operation(file.op_id).error.code == "NODE_WITHDRAWN"
        assert (w.states(), w.receiver.calls) == ([], [])


async def test_a_node_by_hand_respects_max():
    async with world(pool={"min": 1, "max": 1}) as w:
        with pytest.raises(RefusedError) as refused:
            await w.core.new_node("default", server_url="http://127.0.0.1:3030", by="admin")
        assert refused.value.code == "AT_MAX"


async def test_who_does_not_lead_takes_no_one_in():
    async with world(pool={"min": 0}) as w:
        w.lease.lose()
        with pytest.raises(UnreachableError) as away:
            await w.core.register(RegisterRequest.model_validate(REGISTRATION), **CALL)
        assert away.value.code == "NOT_LEADER"
        with pytest.raises(UnreachableError):
            await w.core.adopt(ids.new_node_id(), peer="127.0.0.1")
