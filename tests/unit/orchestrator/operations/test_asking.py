"""What the log says about webhook calls: it is where an operator looks first."""

from __future__ import annotations

import logging

import pytest

from orchestrator.operations.asking import _public
from orchestrator.testing import world


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:8000/provision", "http://localhost:8000/provision"),
        ("https://user:pass@hook.example/run?token=abc#x", "https://hook.example/run"),
        ("http://[bad", "(no usable URL)"),
    ],
)
def test_the_receivers_address_is_named_without_what_may_be_a_secret(url, shown):
    assert _public(url) == shown


async def test_each_webhook_call_and_its_outcome_is_one_line(caplog):
    caplog.set_level(logging.INFO, "ResourceManager")
    async with world() as w:
        (op,) = w.operations()
    (line,) = [record for record in caplog.records if getattr(record, "action", "") == "webhook"]
    assert "scaling webhook http://localhost:8000/provision, attempt 1: answered 202, tracked" in line.getMessage()
    assert (line.op_id, line.levelno) == (op.op_id, logging.INFO)
