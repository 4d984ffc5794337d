"""The resource manager against a fleet with a will of its own: boots are slow or fail, nodes die, NATS goes away.

The real registry, summarise and decide; only machines and time are toys.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.fleet import Registry, advance
from orchestrator.scaling import History, acts, allowed_silence, decide, summarise, victims
from secbeat import ids
from secbeat.settings import PoolSettings
from secbeat.wire.heartbeat import HeartbeatFrame, MetricsFrame, encode_frame
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.pools import Override, Pause

MIN, MAX, INTERVAL, TICK = 2, 6, 5.0, 60.0
PENDING = {"requested", "provisioning", "booting", "joining"}


class Clock:
    """Nothing here waits."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return self.passed

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.passed)

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@dataclass
class Machine:
    """Ground truth that the resource manager cannot see."""

    alive: bool = False
    protected: bool = False
    seq: int = 0


class ToyFleet(RuleBasedStateMachine):
    nodes = Bundle("nodes")

    @initialize(observe=st.booleans())
    def start(self, observe: bool) -> None:
        self.clock = Clock()
        self.registry = Registry(clock=self.clock, default_interval=INTERVAL)
        self.policy = PoolSettings(min=MIN, max=MAX, mode="observe" if observe else "active")
        self.history = History()
        self.machines: dict[str, Machine] = {}
        self.nats = True
        self.cpu = 0.5
        self.created = self.chosen = self.foreign = 0
        if observe:
            for _ in range(3):
                self.join(self.create())

    # ------------------------------------------------------------------ the world

    def create(self) -> str:
        node_id = str(uuid.UUID(int=len(self.machines) + 1))
        now = self.clock.now()
        self.machines[node_id] = Machine()
        self.registry.put(NodeRecord(node_id=node_id, pool="web", state="requested", state_since=now, created_at=now))
        return node_id

    def move(self, node_id: str, state: str, **changes: object) -> None:
        record = self.registry.get(node_id).record
        self.registry.put(advance(record, state, now=self.clock.now(), **changes))

    def join(self, node_id: str) -> None:
        self.machines[node_id].alive = True
        self.move(node_id, "active", registered_at=self.clock.now(), boot_id=ids.new_boot_id())

    def among(self, *states: str) -> list[str]:
        return [node.node_id for node in self.registry.nodes() if node.state in states]

    def beat(self) -> None:
        for node_id, machine in self.machines.items():
            node = self.registry.get(node_id)
            if node is None or not machine.alive or not self.nats or node.state in PENDING:
                continue
            machine.seq += 1
            frame = HeartbeatFrame(
                node_id=node_id,
                boot_id=node.boot_id,
                seq=machine.seq,
                sent_at="",
                status="Active",
                pool="web",
                metrics=MetricsFrame(cpu=self.cpu, memory=0.5, connections=machine.seq % 50),
            )
            self.registry.on_frame(f"secbeat.hb.{node_id}", encode_frame(frame))

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / INTERVAL)):
            self.clock.passed += INTERVAL
            self.beat()

    # ------------------------------------------------------------------ what happens

    @rule(cpu=st.sampled_from([0.0, 0.05, 0.29, 0.31, 0.5, 0.79, 0.81, 0.95, 1.0]))
    def load_changes(self, cpu: float) -> None:
        self.cpu = cpu

    @rule(count=st.integers(1, 7))
    def time_passes_and_the_loop_runs(self, count: int) -> None:
        for _ in range(count):
            self.pass_time(TICK)
            self.evaluate()

    @rule(which=st.integers(0, 99))
    def a_boot_ends_with_a_join(self, which: int) -> None:
        if found := self.among(*PENDING):
            self.join(found[which % len(found)])

    @rule(which=st.integers(0, 99))
    def a_boot_fails(self, which: int) -> None:
        if found := self.among(*PENDING):
            self.registry.drop(found[which % len(found)])

    @rule(which=st.integers(0, 99))
    def a_node_dies(self, which: int) -> None:
        if found := self.among("active"):
            self.machines[found[which % len(found)]].alive = False

    @rule()
    def drains_end(self) -> None:
        for node_id in self.among("draining"):
            self.registry.drop(node_id)

    @rule(which=st.integers(0, 99), on=st.booleans())
    def protection_changes(self, which: int, on: bool) -> None:
        if found := self.among("active"):
            node_id = found[which % len(found)]
            self.machines[node_id].protected = on
            self.move(node_id, "active", protected=on)

    @rule(up=st.booleans())
    def nats_goes_and_comes(self, up: bool) -> None:
        self.nats = up

    @rule(direction=st.sampled_from([None, "in", "out", "both"]), minutes=st.none() | st.integers(1, 5))
    def an_operator_pauses(self, direction: str | None, minutes: int | None) -> None:
        until = None if minutes is None else self.clock.now() + timedelta(minutes=minutes)
        pause = None if direction is None else Pause(direction=direction, since=self.clock.now(), until=until)
        self.history = History(up_checks=0, down_checks=0, pause=pause, last_up_at=self.history.last_up_at)

    @rule(size=st.none() | st.integers(0, 12))
    def an_operator_sets_the_size(self, size: int | None) -> None:
        override = None if size is None else Override(size=size, since=self.clock.now())
        self.history = History(override=override, pause=self.history.pause)

    @rule(rubbish=st.binary(max_size=80))
    def garbage_arrives(self, rubbish: bytes) -> None:
        for node_id in self.among("active"):
            node = self.registry.get(node_id)
            before = (node.cpu, node.seq, node.received, node.deadline)
            self.registry.on_frame(f"secbeat.hb.{node_id}", rubbish)
            assert (node.cpu, node.seq, node.received, node.deadline) == before

    # ------------------------------------------------------------------ one evaluation, carried out

    def evaluate(self) -> None:
        self.judge()
        now = self.clock.now()
        seen = summarise(self.registry.nodes("web"), pool="web", policy=self.policy, now=self.clock.monotonic())
        decision = decide(self.policy, self.history, seen, now)
        self.check(decision, seen)
        self.history = self.history.after(decision)
        if not acts(decision):
            return
        if decision.direction in {"up", "replace"}:
            for _ in range(decision.size):
                self.create()
                self.created += 1
        for node_id in victims(decision):
            if self.registry.get(node_id).state == "failed":
                self.registry.drop(node_id)
            else:
                self.move(node_id, "draining", destroy_op_id=ids.new_op_id())
                self.chosen += 1

    def judge(self) -> None:
        """What the core does with silent nodes whose port does not answer, unless it is an outage."""
        now = self.clock.monotonic()
        active = [self.registry.get(node_id) for node_id in self.among("active", "unreachable")]
        silent = [node for node in active if self.registry.silent(node, now)]
        failed = len(self.among("failed"))
        if len(silent) + failed > allowed_silence(len(active) + failed):
            return
        for node in silent:
            if not self.machines[node.node_id].alive:
                self.move(node.node_id, "failed")

    def check(self, decision, seen) -> None:
        if seen.pending:
            assert decision.code != "HIGH_FLEET_CPU_LOAD"
        if not self.nats and seen.fresh == 0 and seen.active:
            assert decision.code not in {"HIGH_FLEET_CPU_LOAD", "LOW_FLEET_CPU_LOAD"}
        if seen.silent + seen.failed > allowed_silence(seen.active + seen.failed):
            assert not acts(decision)
        for node_id in victims(decision):
            node = self.registry.get(node_id)
            assert node.state == "failed" or not self.machines[node_id].protected
            if decision.code != "UNEXPECTED_NODE_FAILURE":
                assert node.state == "active"
                assert not self.registry.silent(node, self.clock.monotonic())
        if decision.direction == "down" and decision.code != "UNEXPECTED_NODE_FAILURE":
            assert decision.desired >= MIN

    # ------------------------------------------------------------------ always

    @invariant()
    def never_above_max(self) -> None:
        if hasattr(self, "registry"):
            assert len(self.among("active", "unreachable", *PENDING)) <= MAX

    @invariant()
    def observe_has_done_nothing(self) -> None:
        if hasattr(self, "registry") and self.policy.mode == "observe":
            assert (self.created, self.chosen) == (0, 0)


TestToyFleet = ToyFleet.TestCase
TestToyFleet.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_slow_boot_under_full_load_ends_with_exactly_the_nodes_that_are_needed():
    """Defect S3, replayed: demand of 3 nodes, boots of five minutes; the original bought 5."""
    fleet = ToyFleet()
    fleet.start(observe=False)
    fleet.policy = PoolSettings(min=1, max=10)
    demand, boots = 2.1, {}
    for minute in range(60):
        serving = len(fleet.among("active"))
        fleet.cpu = min(demand / serving, 1.0) if serving else 0.0
        fleet.pass_time(TICK)
        fleet.evaluate()
        for node_id in fleet.among(*PENDING):
            boots.setdefault(node_id, minute + 5)
        for node_id, at in boots.items():
            if minute >= at and fleet.registry.get(node_id).state == "requested":
                fleet.join(node_id)
    assert fleet.created == 3
    assert len(fleet.among("active")) == 3
    assert fleet.chosen == 0


def test_a_nats_outage_of_an_hour_changes_nothing_in_the_fleet():
    fleet = ToyFleet()
    fleet.start(observe=False)
    fleet.time_passes_and_the_loop_runs(1)
    while found := fleet.among(*PENDING):
        fleet.join(found[0])
    fleet.cpu = 0.5
    fleet.time_passes_and_the_loop_runs(3)
    before, made = fleet.among("active"), fleet.created
    fleet.nats = False
    fleet.time_passes_and_the_loop_runs(60)
    assert (fleet.among("active"), fleet.created, fleet.chosen) == (before, made, 0)
    fleet.nats = True
    fleet.time_passes_and_the_loop_runs(10)
    assert (fleet.among("active"), fleet.created, fleet.chosen) == (before, made, 0)


def test_one_dead_node_of_two_is_replaced_once():
    fleet = ToyFleet()
    fleet.start(observe=False)
    fleet.time_passes_and_the_loop_runs(1)
    for node_id in fleet.among(*PENDING):
        fleet.join(node_id)
    fleet.time_passes_and_the_loop_runs(2)
    victim = fleet.among("active")[0]
    fleet.machines[victim].alive = False
    fleet.time_passes_and_the_loop_runs(5)
    assert fleet.created == 3
    assert fleet.registry.get(victim) is None
    assert (len(fleet.among("active")), len(fleet.among(*PENDING))) == (1, 1)
