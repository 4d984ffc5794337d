from __future__ import annotations

import pytest

from provisioner.engine import result
from provisioner.engine.result import ResultInvalid

GOOD = {"id": "i-1", "name": "default-12345678", "address": "10.0.0.7", "proxy_port": 8443, "management_port": 9999}


def created(**changes):
    return result.created(GOOD | changes, name="default-12345678", digest="d")


def test_a_good_result_becomes_the_machine():
    machine = created()
    assert (machine.id, machine.address, machine.blueprint_digest) == ("i-1", "10.0.0.7", "d")


@pytest.mark.parametrize("address", ["2001:db8::1", "node-1.example.org", "127.0.1.10"])
def test_addresses_and_names_are_accepted(address):
    assert created(address=address).address == address


@pytest.mark.parametrize(
    "changes",
    [{"address": "http://evil/"}, {"address": "a b"}, {"address": "-x"}, {"address": ""}, {"address": "x" * 300},
     {"proxy_port": 0}, {"management_port": 70000}, {"name": "other-12345678"}, {"id": ""}],
)  # fmt: skip
def test_an_unusable_result_is_refused_with_its_field(changes):
    with pytest.raises(ResultInvalid) as caught:
        created(**changes)
    assert caught.value.error.code == "RESULT_INVALID"
    assert not caught.value.error.retryable


@pytest.mark.parametrize("data", ["text", [1], 5])
def test_a_result_of_another_kind_is_refused(data):
    with pytest.raises(ResultInvalid):
        result.created(data, name="n", digest="d")


def test_no_result_is_said_to_be_missing():
    with pytest.raises(ResultInvalid) as caught:
        result.created(None, name="n", digest="d")
    assert caught.value.error.code == "RESULT_MISSING"


@pytest.mark.parametrize("data", [{"name": "n", "gone": False}, {"name": "n"}, {"name": "other", "gone": True}])
def test_a_destroy_must_say_that_this_machine_is_gone(data):
    with pytest.raises(ResultInvalid):
        result.destroyed(data, name="n")
    result.destroyed({"id": "i", "name": "n", "gone": True}, name="n")
