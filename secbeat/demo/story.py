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
# Work that saturates one node (2.1), fills two (1.05, over the upper threshold) and is carried by three (0.7).
TARGET_CORES = 2.1 * CPU_ALLOWANCE
# What a request costs is measured at half of one node's allowance, where the pool has no reason to grow yet.
_PROBE_CORES = 0.5 * CPU_ALLOWANCE
_LOWEST_RATE, _HIGHEST_RATE = 5.0, 1500.0
# The load that the last nodes may read at low tide, below the lower threshold of 0.30.
_IDLE_LOAD = 0.22
_PROBES = 6
_MOST_RAISED = 1.6
_PROBE_SECONDS, _MEASURE_SECONDS = 2.0, 4.0
_REACHED_SHARE = 0.90
_MEASURED_REQUESTS = 20
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
        self._rate = self._full_rate = self._asked_at = 0.0
        self._drains: dict[str, dict[str, Any]] = {}

    async def first_node(self) -> None:
        """The pool's one node has joined and answers requests."""
        began = time.monotonic()
        node = await self._until("the first node to serve", self._serving(1))
        self._report.step("one node joined and answers", began, f"{node[0]['name']} on {node[0]['address']}")

    async def calibrate(self) -> None:
        """Measure what a request costs on this machine, with loads that one node carries."""
        began = time.monotonic()
        await self._at(_LOWEST_RATE)
        low_rate, low = _LOWEST_RATE, await self._cores_over(_MEASURE_SECONDS)
        rate = 3 * _LOWEST_RATE
        for _ in range(_PROBES):
            await self._at(rate)
            cores = await self._cores_over(_PROBE_SECONDS)
            if cores >= _PROBE_CORES:
                break
            rate *= min(max(1.1 * (_PROBE_CORES - low) / max(cores - low, 0.001), 1.2), 3.0)
        cores = await self._cores_over(_MEASURE_SECONDS)
        # Heartbeats, health checks and slow clients cost the same at any rate; requests are what is left.
        cost = (cores - low) / (rate - low_rate)
        if cost <= 0:
            raise DemoFailed(f"{rate:.0f} requests/s cost the node no CPU: there is nothing to scale by")
        self._full_rate = min(low_rate + (TARGET_CORES - low) / cost, _HIGHEST_RATE)
        self._report.facts["cpu_ms_per_request"] = round(1000 * cost, 3)
        self._report.step("what a request costs, measured", began, f"{1000 * cost:.2f} ms of CPU")

    async def saturate(self) -> None:
        """An open loop at twice what one node carries."""
        began = time.monotonic()
        await self._at(self._full_rate)
        await self._load.next_report()
        self._report.step("load: twice what a node carries", began, f"{self._full_rate:.0f} requests/s")

    async def grow(self) -> None:
        """Until two more nodes serve requests."""
        keeper = asyncio.create_task(self._keep_full(), name="keep the load up")
        try:
            for number, word in ((2, "second"), (3, "third")):
                began = time.monotonic()
                nodes = await self._until(f"the {word} node to serve", self._serving(number))
                newest = max(nodes, key=lambda node: self._load.node(_url(node))["first_served"])
                why = await self._api.get(f"/api/v1/pools/{self._pool}/why")
                self._report.step(f"{word} node built, joined, serves", began, newest["name"])
                self._report.facts.setdefault("sentences", []).append(why["sentence"])
        finally:
            keeper.cancel()
        await self._load.next_report()
        self._report.facts["rate"] = round(self._full_rate, 1)
        self._check_rate("at full load")

    async def _keep_full(self) -> None:
        """Raise the rate where requests turn out cheaper than measured: many at once share work.

        Only while all is well: a machine that has no CPU left would look idle to us, and more load would finish it.
        """
        most = _MOST_RAISED * self._full_rate
        while True:
            cores = await self._cores_over(_MEASURE_SECONDS)
            latest = await self._load.next_report()
            well = latest["reached"] >= 0.95 * latest["asked"] and latest["lag"] < 0.5 and not latest["unsent"]
            wanted = min(self._full_rate * TARGET_CORES / cores, most) if cores > 0 else 0.0
            if well and wanted > 1.05 * self._full_rate:
                self._full_rate = wanted
                await self._at(wanted)

    async def shrink(self) -> None:
        """Load down to a tenth, still going, until only one node is left and the others' processes have ended."""
        began = time.monotonic()
        tenth = self._full_rate / 10
        await self._at(tenth)
        await self._until("the load to fall", self._settled(tenth))
        self._report.step("load down to a tenth", began, f"{tenth:.0f} requests/s")
        keeper = asyncio.create_task(self._keep_low(), name="keep the load down")
        try:
            await self._until_one_is_left()
        finally:
            keeper.cancel()
        # A rate that was changed just now has not been measured yet.
        await asyncio.sleep(max(0.0, self._asked_at + _MEASURED_REQUESTS / self._rate - time.monotonic()))
        await self._load.next_report()
        self._check_rate("at a tenth of the load")

    async def _keep_low(self) -> None:
        """Lower the rate while it is more than fewer nodes should carry: on a busy machine each request costs more."""
        while True:
            cores = await self._cores_over(_MEASURE_SECONDS)
            serving = sum(node["state"] == "active" for node in await self._api.nodes())
            if cores > _IDLE_LOAD * CPU_ALLOWANCE * serving and self._rate > _LOWEST_RATE:
                await self._at(max(0.7 * self._rate, _LOWEST_RATE))

    async def _until_one_is_left(self) -> None:
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
            # A node that has begun to drain is judged as well, even if its process has already ended.
            if len(self._processes.look()) <= 1 and watched.issuperset(self._drains):
                break

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

    def _settled(self, rate: float) -> Callable[[], Awaitable[bool | None]]:
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
        self._report.facts[f"generator's worst lag {when}, s"] = latest["lag"]
        if share < _REACHED_SHARE:
            raise DemoFailed(f"the load generator reached {share:.0%} of the asked rate {when}")

    # ------------------------------------------------------------------ waiting and measuring

    async def _at(self, rate: float) -> None:
        self._rate, self._asked_at = rate, time.monotonic()
        await self._load.ask(rate)

    async def _until(self, what: str, condition: Callable[[], Awaitable[T | None]]) -> T:
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                while True:
                    if self._load.ended:
                        raise DemoFailed(f"the load generator ended while the demo waited for {what}")
                    found = await condition()
                    if found is not None:
                        return found
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise DemoFailed(f"waited {_STEP_SECONDS:.0f} s for {what}; {await self._circumstances()}") from None

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
