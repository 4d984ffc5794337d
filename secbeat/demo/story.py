"""The steps of the demo, each observed from outside: start, saturate, grow, shrink, stop, nothing left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from secbeat.demo.loading import Load
from secbeat.demo.observing import Api, Heartbeats, Processes
from secbeat.demo.reporting import DemoFailed, Report

T = TypeVar("T")

# Cores that one node may use before its load reads 1.0; with it, a small machine can show a saturated fleet.
CPU_ALLOWANCE = 0.10
# Work that saturates one node (2.0), fills two (1.0, over the upper threshold) and is carried by three (0.67).
TARGET_CORES = 2 * CPU_ALLOWANCE
_FIRST_RATE, _LOWEST_RATE, _HIGHEST_RATE = 40.0, 20.0, 1500.0
_CALIBRATION_SECONDS = 2.5
_CALIBRATIONS = 6
_REACHED_SHARE = 0.90
_VICTIM_WINDOW_SECONDS = 10.0
_STEP_SECONDS = 180.0
_POLL_SECONDS = 0.1


class Story:
    """One run. Each method is a step; a step that cannot hold raises DemoFailed with the measured why."""

    def __init__(
        self, *, report: Report, api: Api, processes: Processes, heartbeats: Heartbeats, load: Load, pool: str
    ) -> None:
        self._report = report
        self._api = api
        self._processes = processes
        self._heartbeats = heartbeats
        self._load = load
        self._pool = pool
        self._rate = 0.0
        self._drains: dict[str, dict[str, Any]] = {}

    async def first_node(self) -> None:
        """The pool's one node has joined and answers requests."""
        began = time.monotonic()
        node = await self._until("the first node to serve", self._serving(1))
        self._report.step("one node joined and answers", began, f"{node[0]['name']} on {node[0]['address']}")

    async def saturate(self) -> None:
        """Raise the open-loop rate until the one node uses what saturates it."""
        began = time.monotonic()
        rate = _FIRST_RATE
        cores = 0.0
        for _ in range(_CALIBRATIONS):
            await self._load.ask(rate)
            self._rate = rate
            cores = await self._cores_over(_CALIBRATION_SECONDS)
            if abs(cores - TARGET_CORES) <= 0.08 * TARGET_CORES:
                break
            wanted = rate * TARGET_CORES / cores if cores > 0 else rate * 4
            rate = min(max(wanted, rate / 4, _LOWEST_RATE), rate * 4, _HIGHEST_RATE)
        await self._load.ask(rate)
        self._rate = rate
        self._report.facts["rate"] = round(rate, 1)
        self._report.step("load raised until one node is full", began, f"{rate:.0f} requests/s")

    async def grow(self) -> None:
        """Until two more nodes serve requests."""
        for number, word in ((2, "second"), (3, "third")):
            began = time.monotonic()
            nodes = await self._until(f"the {word} node to serve", self._serving(number))
            newest = max(nodes, key=lambda node: self._load.node(_url(node))["first_served"])
            why = await self._api.get(f"/api/v1/pools/{self._pool}/why")
            self._report.step(f"{word} node built, joined, serves", began, newest["name"])
            self._report.facts.setdefault("sentences", []).append(why["sentence"])
        await self._load.next_report()
        self._check_rate("at full load")

    async def shrink(self) -> None:
        """Load down to a tenth, still going, until only one node is left and the others' processes have ended."""
        await self._load.ask(self._rate / 10)
        began = time.monotonic()
        await self._until("the load to fall", self._at_rate(self._rate / 10))
        self._report.step("load down to a tenth", began, f"{self._rate / 10:.0f} requests/s")
        began = time.monotonic()
        done = 0
        watched: set[str] = set()
        while True:
            drains = await self._until("a node to drain and end", self._drained_beyond(done, watched))
            for name in drains:
                done += 1
                self._check_victim(self._drains[name])
                self._report.step(f"drained, left, torn down ({done})", began, name)
                began = time.monotonic()
            if len(self._processes.look()) <= 1:
                break
        self._check_rate("at a tenth of the load")

    # ------------------------------------------------------------------ conditions

    def _serving(self, count: int) -> Callable[[], Awaitable[list[dict[str, Any]] | None]]:
        """``count`` nodes are active for the orchestrator, ready for the balancer and, under load, have served."""

        async def condition() -> list[dict[str, Any]] | None:
            nodes = [node for node in await self._api.nodes() if node["state"] == "active" and node.get("address")]
            alive = self._processes.look()
            serving = [
                node
                for node in nodes
                if self._load.node(_url(node)).get("healthy")
                and node["name"] in alive
                and node["node_id"] in self._heartbeats.nodes
                and (self._rate == 0 or self._load.node(_url(node))["served"] > 0)
            ]
            return serving if len(serving) >= count else None

        return condition

    def _at_rate(self, rate: float) -> Callable[[], Awaitable[bool | None]]:
        async def condition() -> bool | None:
            report = await self._load.next_report()
            return True if report["asked"] == rate and report["open"] < max(50, rate) else None

        return condition

    def _drained_beyond(self, done: int, told: set[str]) -> Callable[[], Awaitable[list[str] | None]]:
        """Nodes seen draining whose process has now ended and whose directory is gone."""

        async def condition() -> list[str] | None:
            for node in await self._api.nodes():
                if node["state"] in {"draining", "terminating"} and node["name"] not in self._drains:
                    self._drains[node["name"]] = {**node, "drain_seen": time.time(), **self._load.node(_url(node))}
            alive = self._processes.look()
            present = self._processes.directories()
            ended = [name for name in self._drains if name not in alive and name not in present and name not in told]
            vanished = [
                name
                for name, process in self._processes.known.items()
                if not self._processes.alive(process) and name not in self._drains
            ]
            if vanished:
                raise DemoFailed(f"{', '.join(vanished)} ended without ever draining")
            told.update(ended)
            return ended if ended and len(told) > done else None

        return condition

    # ------------------------------------------------------------------ checks

    def _check_victim(self, victim: dict[str, Any]) -> None:
        """A drained node served until its drain, and said good-bye."""
        served_before = victim["drain_seen"] - victim.get("last_served", 0.0)
        if not victim.get("served") or served_before > _VICTIM_WINDOW_SECONDS:
            raise DemoFailed(
                f"{victim['name']} had served nothing in the {_VICTIM_WINDOW_SECONDS:.0f} s before its drain"
            )
        last = self._heartbeats.nodes.get(victim["node_id"])
        if last is None or last.status != "Terminating":
            said = "nothing" if last is None else last.status
            raise DemoFailed(f"{victim['name']} ended without its final heartbeat (the last one said {said})")

    def _check_rate(self, when: str) -> None:
        """An open loop that falls behind measures nothing."""
        latest = self._load.latest
        share = latest["reached"] / latest["asked"] if latest["asked"] else 0.0
        self._report.facts[f"reached {when}"] = round(share, 3)
        if share < _REACHED_SHARE:
            raise DemoFailed(f"the load generator reached {share:.0%} of the asked rate {when}")

    # ------------------------------------------------------------------ waiting and measuring

    async def _until(self, what: str, condition: Callable[[], Awaitable[T | None]]) -> T:
        deadline = time.monotonic() + _STEP_SECONDS
        while time.monotonic() < deadline:
            found = await condition()
            if found is not None:
                return found
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoFailed(f"waited {_STEP_SECONDS:.0f} s for {what}; {await self._circumstances()}")

    async def _circumstances(self) -> str:
        why = await self._api.get(f"/api/v1/pools/{self._pool}/why")
        states = [f"{node['name'] or node['node_id'][:8]} {node['state']}" for node in await self._api.nodes()]
        return f"nodes: {', '.join(states) or 'none'}; {why['sentence']}"

    async def _cores_over(self, seconds: float) -> float:
        """Cores that the serving nodes used, over the second half of the time: the first half settles.

        A node that only starts meanwhile is left out: its start-up is work, but none that requests make.
        """
        await asyncio.sleep(seconds / 2)
        serving = {node["name"] for node in await self._api.nodes() if node["state"] == "active"}
        before, at = self._processes.cpu_seconds(serving), time.monotonic()
        await asyncio.sleep(seconds / 2)
        return max(0.0, self._processes.cpu_seconds(serving) - before) / (time.monotonic() - at)


def _url(node: dict[str, Any]) -> str:
    return f"https://{node['address']}:{node['proxy_port']}"
