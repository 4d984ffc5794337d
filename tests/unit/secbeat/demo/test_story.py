"""The checks of the story, with fakes in place of the API, the process table, the heartbeats and the load."""

from __future__ import annotations

import asyncio
import time

import pytest

from secbeat.demo import story as module
from secbeat.demo.observing import Seen
from secbeat.demo.reporting import DemoFailed, Report
from secbeat.demo.story import Story


class Api:
    """Nodes as the orchestrator lists them; ``script`` changes the world before each listing."""

    def __init__(self, world):
        self.world = world

    async def nodes(self):
        if self.world.script:
            self.world.script.pop(0)()
        return [dict(node) for node in self.world.listed.values()]

    async def get(self, _path):
        return {"sentence": "holding at 1"}


class Processes:
    def __init__(self, world):
        self.world = world

    @property
    def known(self):
        return {name: name for name in self.world.seen}

    def alive(self, name):
        return name in self.world.running

    def look(self):
        return {name: name for name in self.world.running}

    def directories(self):
        return sorted(self.world.directories)

    def cpu_seconds(self, _names):
        self.world.cpu += self.world.cpu_per_look
        return self.world.cpu


class Heartbeats:
    def __init__(self):
        self.nodes = {}


class Load:
    def __init__(self):
        self.ended = False
        self.latest = {"asked": 10.0, "reached": 10.0, "lag": 0.0, "open": 0, "unsent": 0, "nodes": {}}

    async def ask(self, rate):
        self.latest |= {"asked": rate, "reached": rate}

    async def next_report(self):
        return self.latest

    def node(self, url):
        return self.latest["nodes"].get(url, {})


class World:
    """Three nodes that serve, and what can happen to them."""

    def __init__(self):
        self.script = []
        self.cpu = self.cpu_per_look = 0.0
        self.listed, self.running, self.directories, self.seen = {}, set(), set(), set()
        self.heartbeats, self.load, self.report = Heartbeats(), Load(), Report(as_json=True)
        for number in range(3):
            name = f"demo-{number}"
            self.listed[name] = {
                "name": name,
                "node_id": str(number),
                "state": "active",
                "address": f"127.0.1.1{number}",
                "proxy_port": 8443,
            }
            for group in (self.running, self.directories, self.seen):
                group.add(name)
            self.serves(number, time.time())
            self.says(number, "Active")
        self.story = Story(
            report=self.report,
            api=Api(self),
            processes=Processes(self),
            heartbeats=self.heartbeats,
            load=self.load,
            pool="demo",
        )
        self.story._full_rate = 10_000.0  # fmt: skip

    def serves(self, number, last):
        figures = {"healthy": True, "served": 9, "first_served": last, "last_served": last}
        self.load.latest["nodes"][f"https://127.0.1.1{number}:8443"] = figures

    def says(self, number, status):
        self.heartbeats.nodes[str(number)] = Seen(status, time.time(), 1)

    def drains(self, number):
        self.listed[f"demo-{number}"]["state"] = "draining"

    def dies(self, number):
        self.running.discard(f"demo-{number}")

    def ends(self, number):
        self.says(number, "Terminating")
        self.dies(number)

    def removed(self, number):
        self.directories.discard(f"demo-{number}")
        self.listed.pop(f"demo-{number}")


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(module, "_STEP_SECONDS", 0.5)
    return World()


def all_of(*steps):
    def run():
        for step, number in steps:
            step(number)

    return run


async def test_two_drained_nodes_are_two_steps(world):
    world.script = [
        all_of((world.drains, 0)),
        all_of((world.ends, 0), (world.removed, 0)),
        all_of((world.drains, 1)),
        all_of((world.ends, 1)),
        all_of((world.removed, 1)),
    ]
    await world.story.shrink()
    assert [step.name for step in world.report.steps][1:] == [f"drained, left, torn down ({n})" for n in (1, 2)]


async def test_a_load_that_is_no_low_tide_on_this_machine_is_lowered_further(world, monkeypatch):
    monkeypatch.setattr(module, "_MEASURE_SECONDS", 0.02)
    world.cpu_per_look = 1.0
    with pytest.raises(DemoFailed, match="waited"):
        await world.story.shrink()
    assert world.load.latest["asked"] == module._LOWEST_RATE


async def test_a_victim_killed_in_mid_drain_fails_and_is_named(world):
    world.script = [all_of((world.drains, 0)), all_of((world.dies, 0)), all_of((world.removed, 0))]
    with pytest.raises(DemoFailed, match="demo-0 ended without its final heartbeat"):
        await world.story.shrink()


async def test_a_second_victim_killed_while_the_first_is_removed_is_judged_as_well(world):
    world.script = [
        all_of((world.drains, 0), (world.drains, 1)),
        all_of((world.ends, 0), (world.removed, 0), (world.dies, 1)),
        all_of((world.removed, 1)),
    ]
    with pytest.raises(DemoFailed, match="demo-1 ended without its final heartbeat"):
        await world.story.shrink()


async def test_a_node_that_dies_without_a_drain_fails_and_is_named(world):
    world.script = [all_of((world.dies, 2))]
    with pytest.raises(DemoFailed, match="demo-2 ended without ever draining"):
        await world.story.shrink()


async def test_a_victim_that_was_idle_before_its_drain_proves_nothing(world):
    world.serves(0, time.time() - 11)
    world.script = [all_of((world.drains, 0)), all_of((world.ends, 0), (world.removed, 0))]
    with pytest.raises(DemoFailed, match="demo-0 had served nothing in the 10 s"):
        await world.story.shrink()


async def test_a_drained_node_whose_directory_stays_is_not_gone(world):
    world.script = [all_of((world.drains, 0)), all_of((world.ends, 0))]
    with pytest.raises(DemoFailed, match=r"waited .* for a node to drain and end; nodes: demo-0 draining"):
        await world.story.shrink()


async def test_a_generator_that_falls_behind_fails_the_demo(world):
    world.load.latest |= {"asked": 100.0, "reached": 89.0}
    with pytest.raises(DemoFailed, match="reached 89% of the asked rate at full load"):
        world.story._check_rate("at full load")
    world.load.latest |= {"reached": 90.0}
    world.story._check_rate("at full load")


async def test_a_node_serves_only_if_everybody_says_so(world):
    async def serving():
        return await world.story._serving(3)()

    await world.story._at(10)
    assert len(await serving()) == 3
    figures = world.load.node("https://127.0.1.11:8443")
    for change, back in (
        (lambda: figures.update(healthy=False), lambda: figures.update(healthy=True)),
        (lambda: figures.update(served=0), lambda: figures.update(served=1)),
        (lambda: world.dies(1), lambda: world.running.add("demo-1")),
        (lambda: world.heartbeats.nodes.pop("1"), lambda: world.says(1, "Active")),
        (lambda: world.drains(1), lambda: world.listed["demo-1"].update(state="active")),
    ):
        change()
        assert await serving() is None
        back()
        assert await serving()


async def test_a_step_ends_at_once_when_the_load_has_ended(world):
    world.load.ended = True
    with pytest.raises(DemoFailed, match="load generator ended"):
        await world.story.first_node()


async def test_a_condition_that_hangs_ends_with_the_step(world):
    async def hang():
        await asyncio.Event().wait()

    with pytest.raises(DemoFailed, match=r"waited .* for Godot; nodes: demo-0 active"):
        await world.story._until("Godot", hang)
