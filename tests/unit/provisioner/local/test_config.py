from __future__ import annotations

import tomllib

import pytest

from provisioner.local.config import read_config
from secbeat.errors import SecbeatError


def test_wildcard_listen_addresses_become_the_machines_own():
    text = (
        '[node]\nlisten_addr = "0.0.0.0:8443"\nmetrics_addr = "0.0.0.0:9090"\npublic_ip = "0.0.0.0"\n'
        '[management]\nlisten_addr = "0.0.0.0:9999"\n'
    )
    narrowed = tomllib.loads(read_config(text).narrowed("127.0.1.77"))
    assert narrowed == {
        "node": {"listen_addr": "127.0.1.77:8443", "metrics_addr": "127.0.1.77:9090", "public_ip": "127.0.1.77"},
        "management": {"listen_addr": "127.0.1.77:9999"},
    }


def test_addresses_that_are_no_wildcards_stay():
    text = '[node]\nlisten_addr = "127.0.0.1:8443"\nbackend = "http://0.0.0.0:8080"\n'
    assert read_config(text).narrowed("127.0.1.77") == text


def test_a_line_inside_a_string_is_refused_rather_than_changed():
    text = '[node]\nbackend = """\nlisten_addr = "0.0.0.0:1"\n"""\n'
    with pytest.raises(SecbeatError) as caught:
        read_config(text).narrowed("127.0.1.77")
    assert caught.value.code == "MACHINE_INVALID"


def test_an_address_that_cannot_be_narrowed_is_refused():
    text = 'node = {listen_addr = "0.0.0.0:8443"}\n'
    with pytest.raises(SecbeatError) as caught:
        read_config(text).narrowed("127.0.1.77")
    assert caught.value.code == "MACHINE_INVALID"


@pytest.mark.parametrize(
    "text",
    [
        "[node",
        "node = 3",
        '[node]\nlisten_addr = "0.0.0.0"',
        '[node]\nlisten_addr = "0.0.0.0:0"',
        '[management]\nlisten_addr = "x:99999"',
        '[management]\nshutdown_grace_period = "soon"',
    ],
)
def test_a_broken_configuration_is_named(text):
    with pytest.raises(SecbeatError) as caught:
        read_config(text)
    assert caught.value.code == "MACHINE_INVALID"


def test_a_disabled_management_port_is_not_waited_for():
    assert read_config("[management]\nenabled = false\n").ports.management == 0


def test_a_node_with_a_join_file_needs_no_token_file():
    text = '[node]\njoin_file = "j"\n[management]\nauth_token_file = "/t"\n'
    assert read_config(text).token_file is None
    assert read_config('[management]\nauth_token_file = "/t"\n').token_file == "/t"
