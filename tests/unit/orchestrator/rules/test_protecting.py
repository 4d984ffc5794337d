"""What can never be blocked."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace

import pytest

from orchestrator.rules import Protected, canonical
from secbeat.errors import RefusedError


class Node:
    """A node that counts how often its record is read."""

    def __init__(self, node_id, public_ip=None, peer=None, machine=None):
        self.node_id, self.packed, self.read = node_id, b"1", 0
        machine = machine and SimpleNamespace(address=machine)
        self._record = SimpleNamespace(public_ip=public_ip, peer_address=peer, machine=machine)

    @property
    def record(self):
        self.read += 1
        return self._record


NODES = [Node("a", "10.0.0.5", "10.0.0.6"), Node("b", machine="2001:db8::5"), Node("c", "not-an-address")]
PROTECTED = Protected(
    [ip_network("192.0.2.0/28"), ip_network("2001:db8:1::/48")],
    hosts=["198.51.100.1", "0.0.0.0", "localhost", "[::1]"],
    nodes=lambda: NODES,
)


@pytest.mark.parametrize(
    "ip",
    ["192.0.2.3", "192.0.2.0/24", "192.0.2.8/30", "2001:db8:1::7", "198.51.100.1", "198.51.100.0/24", "::1",
     "10.0.0.5", "10.0.0.6", "10.0.0.0/8", "2001:db8::/32", "::ffff:10.0.0.5"],
)  # fmt: skip
async def test_what_covers_a_protected_address_is_refused_and_the_refusal_names_it(ip):
    with pytest.raises(RefusedError) as refused:
        await PROTECTED.check(canonical(ip))
    assert refused.value.code == "RULE_PROTECTED"
    assert canonical(ip) in refused.value.why
    assert "never_block" in refused.value.fix


@pytest.mark.parametrize("ip", ["192.0.2.16", "198.51.100.2", "10.0.0.7", "2001:db8:2::7", "203.0.113.0/24", "0.0.0.0"])
async def test_everything_else_can_be_blocked(ip):
    await PROTECTED.check(ip)


async def test_a_record_is_read_again_only_when_it_has_changed_and_forgotten_with_its_node():
    nodes = [Node("a", "10.0.0.5")]
    protected = Protected(nodes=lambda: nodes)
    for _ in range(3):
        await protected.check("10.0.0.9")
    assert nodes[0].read == 1
    nodes[0].packed, nodes[0]._record.public_ip = b"2", "10.0.0.9"
    with pytest.raises(RefusedError):
        await protected.check("10.0.0.9")
    nodes.clear()
    await protected.check("10.0.0.9")
