"""The heartbeat's fast decoder and its model are the same message."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from secbeat.wire.heartbeat import Heartbeat, HeartbeatFrame, Metrics, MetricsFrame, decode_frame, encode_frame

GOLDEN = json.loads((Path(__file__).with_name("golden") / "v1" / "heartbeat.Heartbeat.json").read_text())


def changed(**metrics) -> bytes:
    return json.dumps(GOLDEN | {"metrics": GOLDEN["metrics"] | metrics}).encode()


def fast(raw: bytes) -> bool:
    try:
        decode_frame(raw)
    except msgspec.MsgspecError:
        return False
    return True


def slow(raw: bytes) -> bool:
    try:
        Heartbeat.decode(raw)
    except ValidationError:
        return False
    return True


def test_both_have_the_same_fields():
    assert {field.name for field in msgspec.structs.fields(HeartbeatFrame)} == set(Heartbeat.model_fields)
    assert {field.name for field in msgspec.structs.fields(MetricsFrame)} == set(Metrics.model_fields)


def test_both_read_the_golden_message_alike():
    raw = json.dumps(GOLDEN).encode()
    assert msgspec.to_builtins(decode_frame(raw)) == json.loads(Heartbeat.decode(raw).encode())


def test_what_a_node_encodes_both_read():
    raw = encode_frame(decode_frame(json.dumps(GOLDEN).encode()))
    assert json.loads(raw) == GOLDEN
    assert slow(raw)


@given(
    cpu=st.floats(-1, 2) | st.sampled_from([0, 1, True, "0.5", None]),
    connections=st.integers(-5, 5) | st.sampled_from([0.5, "1", None]),
    rps=st.floats(-5, 1e13, allow_nan=False) | st.just("1"),
)
def test_the_fast_decoder_accepts_nothing_that_the_model_refuses(cpu, connections, rps):
    raw = changed(cpu=cpu, connections=connections, rps=rps)
    assert slow(raw) or not fast(raw)


@given(cpu=st.floats(0, 1), memory=st.floats(0, 1), connections=st.integers(0, 2**53), rps=st.floats(0, 1e12))
def test_both_accept_every_valid_load(cpu, memory, connections, rps):
    raw = changed(cpu=cpu, memory=memory, connections=connections, rps=rps)
    assert fast(raw)
    assert slow(raw)


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_are_none_are_refused_by_both(literal):
    raw = changed(cpu=0.123456).replace(b"0.123456", literal)
    assert not fast(raw)
    assert not slow(raw)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"null", b"{" * 100_000, b"\xff" * 10, b'{"node_id": "x"}'])
def test_what_is_no_heartbeat_is_refused_by_both(raw):
    assert not fast(raw)
    assert not slow(raw)
