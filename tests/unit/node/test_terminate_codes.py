"""A terminate that is not meant for this node, or does not say for whom it is meant, is refused by its own code."""

from __future__ import annotations

import uuid

import pytest

from node.commands import Commands
from node.drain import Drain
from node.identity import IdentityStore, Kept
from node.membership import Member
from secbeat.errors import SecbeatError
from secbeat.wire.control import TerminateRequest

NODE, OTHER, BOOT = (str(uuid.uuid4()) for _ in range(3))
FOR_US = {
    "reason": "LOW_FLEET_CPU_LOAD", "timestamp": "2025-07-12T10:30:45Z", "grace_period_seconds": 60,
    "node_id": NODE, "boot_id": BOOT, "epoch": 7,
}  # fmt: skip


@pytest.fixture
def commands(plane, clock, tmp_path):
    store = IdentityStore(tmp_path)
    store.keep(
        Kept(server_url="http://x", cluster_id=NODE, node_id=NODE, pool="web", epoch=7, management_token="the-token")
    )
    drain = Drain(plane, clock, boot_id=BOOT, record_file=tmp_path / "drain.json", longest=45.0, propagation=10.0)
    member = Member(NODE, "web", 5.0, legacy=False)
    return Commands(drain, store, boot_id=BOOT, member=lambda: member, on_blocklist=lambda _version: None)


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        ({"node_id": OTHER}, "TERMINATE_WRONG_TARGET", 409),
        ({"boot_id": OTHER}, "TERMINATE_WRONG_TARGET", 409),
        ({"epoch": 6}, "TERMINATE_STALE_EPOCH", 409),
        ({"node_id": None}, "TERMINATE_UNGUARDED", 422),
        ({"epoch": None}, "TERMINATE_UNGUARDED", 422),
    ],
)
def test_what_is_not_meant_for_this_node_is_refused(commands, change, code, status):
    with pytest.raises(SecbeatError) as refused:
        commands.terminate(TerminateRequest.model_validate({**FOR_US, **change}), lenient=False)
    assert (refused.value.code, refused.value.status) == (code, status)
