from __future__ import annotations

import socket
from pathlib import Path

import pytest

from secbeat.errors import ConfigError
from secbeat.up.ports import Reservations, check_free


@pytest.fixture
def reservations():
    found = Reservations()
    yield found
    found.release()


def test_a_reserved_port_is_given_to_nobody_else(reservations):
    other = Reservations()
    try:
        port = reservations.free("127.0.0.1")
        assert other.free("127.0.0.1", preferred=port) != port
    finally:
        other.release()


def test_a_service_can_listen_on_the_reserved_port(reservations):
    port = reservations.free("127.0.0.1")
    with socket.create_server(("127.0.0.1", port)):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_the_preferred_port_is_taken_if_it_is_free(reservations):
    first = Reservations()
    port = first.free("127.0.0.1")
    first.release()
    assert reservations.free("127.0.0.1", preferred=port) == port


def test_connections_that_linger_do_not_cost_the_port(reservations):
    first = Reservations()
    port = first.free("127.0.0.1")
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(("127.0.0.1", port), timeout=5)
        accepted, _ = server.accept()
        accepted.close()  # the server closes first, so its side lingers in TIME_WAIT
        client.close()
    first.release()
    assert reservations.free("127.0.0.1", preferred=port) == port


def test_reserved_ports_are_below_the_kernels_own(reservations):
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert reservations.free("127.0.0.1") < lowest


def test_ipv6_works_as_well(reservations):
    port = reservations.free("::1")
    with socket.create_server(("::1", port), family=socket.AF_INET6):
        pass


def test_a_taken_port_is_named_with_its_key():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError) as caught:
            check_free("orchestrator.listen_addr", address)
    assert caught.value.code == "PORT_IN_USE"
    assert f"orchestrator.listen_addr = {address}" in caught.value.why
    assert caught.value.exit_code == 2


def test_a_foreign_address_is_named_with_its_key():
    with pytest.raises(ConfigError) as caught:
        check_free("provisioner.listen_addr", "192.0.2.1:8000")
    assert caught.value.code == "ADDRESS_UNAVAILABLE"
    assert "provisioner.listen_addr" in caught.value.why
