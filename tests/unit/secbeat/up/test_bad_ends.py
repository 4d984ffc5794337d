"""A start that does not come about and an end that leaves something behind have codes of their own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from secbeat.demo import running as demo
from secbeat.errors import SecbeatError
from secbeat.up import running


class Instance:
    """Local nodes stay, whatever is tried."""

    def __init__(self) -> None:
        self.stopped = False

    async def retire(self, _tell) -> list[str]:
        return ["web-1f9c2a7e"]

    async def stop(self, *, retire: bool, quickly: bool) -> None:
        self.stopped = not retire and not quickly


async def test_nodes_that_stay_are_named_after_the_services_have_stopped():
    instance, screen = Instance(), SimpleNamespace(note=lambda _line: None, leaving=None)
    with pytest.raises(SecbeatError) as ended:
        await running._end(instance, running.Wishes(), screen)
    assert (ended.value.code, ended.value.why) == ("POOLS_NOT_EMPTY", "still there: web-1f9c2a7e")
    assert instance.stopped


async def test_an_origin_that_has_died_is_not_waited_for():
    with pytest.raises(SecbeatError) as refused:
        await demo._answering("http://127.0.0.1:1", SimpleNamespace(pid=None))
    assert refused.value.code == "SERVICE_NOT_READY"
