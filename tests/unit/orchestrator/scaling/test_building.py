"""What is built without validation behaves as what was validated."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from orchestrator.scaling.building import build
from secbeat.wire.decisions import Candidate

FIELDS = {"node_id": "4b8c1c6e-1111-4111-8111-111111111111", "connections": 3, "blocked_by": None}


def test_it_equals_the_validated_one_in_every_use():
    built, validated = build(Candidate, **FIELDS), Candidate(**FIELDS)
    assert built == validated
    assert hash(built) == hash(validated)
    assert repr(built) == repr(validated)
    assert built.model_dump_json() == validated.model_dump_json()
    assert built.model_fields_set == validated.model_fields_set
    assert (built.model_extra, built.__pydantic_private__) == (None, None)


def test_it_is_frozen():
    with pytest.raises(ValidationError):
        build(Candidate, **FIELDS).connections = 4


def test_a_copy_with_changes_changes_no_other():
    one, other = build(Candidate, **FIELDS), build(Candidate, **{**FIELDS, "connections": 9})
    copy = one.model_copy(update={"connections": 4, "unknown": 1})
    assert (one.connections, copy.connections, other.connections) == (3, 4, 9)
    assert one.model_fields_set == other.model_fields_set == set(FIELDS)
