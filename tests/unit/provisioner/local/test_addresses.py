from __future__ import annotations

import itertools
import socket

import pytest

from provisioner.local.addresses import candidates, lease
from secbeat.errors import SecbeatError


def test_addresses_start_at_127_0_1_10_and_skip_the_ends_of_each_block():
    found = list(itertools.islice(candidates(), 250))
    assert found[0] == "127.0.1.10"
    assert found[244:246] == ["127.0.1.254", "127.0.2.1"]


def test_an_address_is_held_until_every_copy_of_its_socket_is_closed():
    first = lease([])
    copy = first.holder.dup()
    first.close()
    second = lease([])
    try:
        assert second.address != first.address
    finally:
        copy.close()
        second.close()


def test_an_address_with_a_taken_port_is_passed_over():
    with lease([]).holder as holder:
        held = holder.getsockname().decode().removeprefix("\0secbeat-machine-")
        with socket.create_server((held, 0)) as server:
            port = server.getsockname()[1]
            holder.close()
            found = lease([port])
            try:
                assert found.address != held
            finally:
                found.close()


def test_a_wildcard_listener_is_named_at_once():
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SecbeatError) as caught:
            lease([port])
    assert caught.value.code == "MACHINE_NO_ADDRESS"
    assert str(port) in caught.value.why
