"""Messages and records as they were written by each version: what was stored must stay readable.

A file stays as it is for ever: a change that breaks one breaks the state of people who upgrade. A new version gets a
folder of its own; readers accept their version and the one before.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

import secbeat.wire
from secbeat.errors import ConfigError
from secbeat.wire.base import VERSION, Record, Wire

GOLDEN = Path(__file__).with_name("golden")
FILES = sorted(path for version in (VERSION - 1, VERSION) for path in (GOLDEN / f"v{version}").glob("*.json"))


def model_of(path: Path):
    module, _, name = path.stem.partition(".")
    return getattr(importlib.import_module(f"secbeat.wire.{module}"), name)


def models() -> dict[str, type[Wire]]:
    """Every model of the wire, by ``module.Class``."""
    found = {}
    for module in pkgutil.iter_modules(secbeat.wire.__path__):
        for name, item in vars(importlib.import_module(f"secbeat.wire.{module.name}")).items():
            if isinstance(item, type) and issubclass(item, Wire) and item.__module__.endswith(f".{module.name}"):
                found[f"{module.name}.{name}"] = item
    return {name: model for name, model in found.items() if not name.startswith("base.")}


def records() -> set[str]:
    """``module.Class`` of every versioned record."""
    return {name for name, model in models().items() if issubclass(model, Record)}


def parts() -> set[type]:
    """The models that stand inside others: they are in the golden files of those."""

    def inside(annotation):
        if isinstance(annotation, type) and issubclass(annotation, Wire):
            yield annotation
        for argument in get_args(annotation):
            yield from inside(argument)

    fields = (field for model in models().values() for field in model.model_fields.values())
    return {part for field in fields for part in inside(field.annotation)}


def surviving(old, new) -> None:
    """Every key and value of ``old`` stands in ``new``, which may have more."""
    if isinstance(old, dict):
        assert isinstance(new, dict)
        for key, value in old.items():
            assert key in new
            surviving(value, new[key])
    elif isinstance(old, list):
        assert len(old) == len(new)
        for one, two in zip(old, new, strict=True):
            surviving(one, two)
    else:
        assert old == new


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_was_written_is_read_and_nothing_of_it_is_lost(path):
    surviving(json.loads(path.read_text()), json.loads(model_of(path).decode(path.read_text()).encode()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_unknown_keys_of_a_newer_minor_are_ignored(path):
    data = json.loads(path.read_text()) | {"added_later": {"x": [1]}}
    assert model_of(path).decode(json.dumps(data)) == model_of(path).decode(path.read_text())


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.stem in records() and path.stem != "webhook.Operation"],
    ids=lambda path: path.stem,
)
def test_a_record_of_the_next_version_is_refused_with_a_sentence(path):
    data = json.loads(path.read_text()) | {"v": VERSION + 1}
    with pytest.raises(ConfigError) as caught:
        model_of(path).decode(json.dumps(data))
    assert caught.value.code == "STATE_NEWER"
    assert f"version {VERSION + 1}" in caught.value.why


def test_everything_that_is_stored_or_sent_has_a_golden_file():
    inside = parts()
    # A decision stands inside others, and by itself in the ledger.
    messages = {name for name, model in models().items() if model not in inside} | (records() - {"webhook.Operation"})
    assert messages - {path.stem for path in FILES} == set()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("heartbeat.Heartbeat", {"node_id": "../../etc"}),
        ("heartbeat.Heartbeat", {"pool": "a.b"}),
        ("jobs.JobRecord", {"op_id": "01JD2K"}),
        ("jobs.JobRecord", {"created_at": "2026-01-31T03:00:00"}),
        ("operations.OperationRecord", {"reason": "{{ lookup('pipe', 'id') }}"}),
        ("webhook.WebhookBody", {"reason": "$(id)"}),
        ("registration.JoinFile", {"pool": "web/../x"}),
        ("registration.RegisterRequest", {"public_ip": "example.org"}),
        ("control.TerminateRequest", {"grace_period_seconds": -1}),
        ("pools.ScaleRequest", {"size": 100_001}),
        ("pools.ScaleRequest", {"for_seconds": 0}),
    ],
)
def test_hostile_or_impossible_values_are_refused(name, change):
    path = GOLDEN / f"v{VERSION}" / f"{name}.json"
    with pytest.raises(ValidationError):
        model_of(path).decode(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize("name", ["registration.JoinFile", "registration.JoinSecret", "registration.RegisterResponse"])
def test_a_secret_is_not_shown_by_repr(name):
    message = model_of(GOLDEN / f"v{VERSION}" / f"{name}.json").decode(
        (GOLDEN / f"v{VERSION}" / f"{name}.json").read_text()
    )
    assert "s3cret" not in repr(message) + str(message)
    assert "t0ken" not in repr(message) + str(message)
