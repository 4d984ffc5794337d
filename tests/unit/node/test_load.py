from __future__ import annotations

import subprocess
import sys
import time

import msgspec
import pytest

from node.dataplane import Quantiles, Totals
from node.dataplane.latency import LatencyHistogram
from node.load import Sampler
from node.load.cpu import CgroupMeter, MachineMeter, ProcessTreeMeter, Reading, meter, use_between
from node.load.memory import memory_in_use
from secbeat.wire.heartbeat import MetricsFrame


class Meter:
    def __init__(self) -> None:
        self.used = 0.0

    def read(self, wall: float) -> Reading:
        return Reading(self.used, wall * 0.1)  # an allowance of a tenth of a core


@pytest.mark.parametrize(
    ("first", "second", "use"),
    [
        (Reading(1, 10), Reading(2, 14), 0.25),
        (Reading(1, 10), Reading(9, 14), 1.0),
        (Reading(5, 10), Reading(1, 14), 0.0),
        (Reading(1, 10), Reading(2, 10), None),
        (Reading(1, 10), Reading(2, 9), None),
    ],
)
def test_use_is_a_difference_clamped_to_a_fraction(first, second, use):
    assert use_between(first, second) == use


async def test_every_figure_covers_the_last_interval_and_not_the_time_since_the_start(plane, clock):
    counting = Meter()
    sampler = Sampler(plane, counting, clock, memory=lambda: 0.25)
    await clock.advance(10)
    counting.used, plane.totals = 0.5, Totals(requests=1000, server_errors=20, connections=7, in_flight=3)
    plane.latency = Quantiles(1.0, 2.0, 3.0)
    busy = sampler.take()
    assert (busy.cpu, busy.rps, busy.errors_per_second) == (0.5, 100.0, 2.0)
    assert (busy.memory, busy.connections, busy.in_flight, busy.seconds) == (0.25, 7, 3, 10.0)
    await clock.advance(5)
    idle = sampler.take()
    assert (idle.cpu, idle.rps, idle.errors_per_second) == (0.0, 0.0, 0.0)


async def test_a_heartbeat_right_after_another_repeats_its_figures_instead_of_measuring_noise(plane, clock):
    counting = Meter()
    sampler = Sampler(plane, counting, clock, memory=lambda: 0.0)
    await clock.advance(10)
    counting.used = 0.5
    first = sampler.take()
    await clock.advance(0.01)
    counting.used, plane.totals = 0.51, Totals(connections=9)
    second = sampler.take()
    assert (second.cpu, second.connections) == (first.cpu, 9)
    await clock.advance(0.99)
    assert sampler.take().cpu == pytest.approx(0.1)  # nothing was lost between the two


async def test_the_work_of_the_start_is_no_load(plane, clock):
    counting = Meter()
    sampler = Sampler(plane, counting, clock, memory=lambda: 0.0)
    await clock.advance(1)
    counting.used = 5.0
    sampler.restart()
    await clock.advance(10)
    assert sampler.take().cpu == 0.0


async def test_a_sample_fits_into_a_heartbeat(plane, clock):
    sampler = Sampler(plane, Meter(), clock)
    await clock.advance(3)
    frame = sampler.take().frame()
    assert msgspec.json.decode(msgspec.json.encode(frame), type=MetricsFrame) == frame
    assert 0 < frame.memory <= 1


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_process_tree_is_measured_against_its_allowance():
    tree = ProcessTreeMeter(0.5)
    first = tree.read(100.0)
    burn(0.2)
    second = tree.read(101.0)
    assert use_between(first, second) == pytest.approx(0.4, abs=0.15)


def test_what_a_descendant_used_counts_also_after_its_end():
    tree = ProcessTreeMeter(1.0)
    first = tree.read(0.0)
    code = "import time\nwhile time.process_time() < 0.4: pass\nprint(1, flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        during = tree.read(1.0).used - first.used
        child.stdin.write(b"\n")
    after = tree.read(2.0).used - first.used
    assert during >= 0.35
    assert after >= during


def group(root, name: str, **files: str):
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    for key, text in files.items():
        (directory / key.replace("_", ".", 1)).write_text(text)
    return directory


def test_the_tightest_quota_above_a_process_is_what_it_is_measured_against(tmp_path):
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    proc.write_text("0::/a/b\n")
    group(root, ".", cpu_stat="usage_usec 9\n")
    group(root, "a", cpu_max="50000 100000\n", cpu_stat="usage_usec 1000000\nuser_usec 3\n")
    group(root, "a/b", cpu_max="max 100000\n", cpu_stat="usage_usec 5\n")
    found = meter(None, root=root, proc=proc)
    assert isinstance(found, CgroupMeter)
    first = found.read(10.0)
    group(root, "a", cpu_stat="usage_usec 2000000\n")
    assert use_between(first, found.read(14.0)) == pytest.approx(0.5)  # 1 s of 4 s times half a core


def test_without_a_quota_the_machine_is_measured(tmp_path):
    assert isinstance(meter(None, root=tmp_path, proc=tmp_path / "absent"), MachineMeter)
    first = MachineMeter().read(0.0)
    burn(0.3)
    use = use_between(first, MachineMeter().read(0.0))
    assert 0 < use <= 1


def test_an_allowance_goes_before_everything_else():
    assert isinstance(meter(0.1), ProcessTreeMeter)


def test_memory_is_measured_against_the_groups_limit_without_droppable_cache(tmp_path):
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    proc.write_text("0::/a\n")
    group(
        root,
        "a",
        memory_max=f"{1 << 20}\n",
        memory_current=f"{3 << 18}\n",
        memory_stat=f"anon 1\ninactive_file {1 << 18}\n",
    )
    assert memory_in_use(root, proc) == 0.5
    group(root, "a", memory_max="max\n")
    assert memory_in_use(root, proc) == pytest.approx(memory_in_use(root, tmp_path / "absent"), abs=0.2)


def test_latency_quantiles_are_of_the_interval_and_at_most_five_percent_high():
    histogram = LatencyHistogram()
    for milliseconds in range(1, 101):
        histogram.add(milliseconds / 1000)
    taken = histogram.take()
    for value, true in ((taken.p50, 50), (taken.p95, 95), (taken.p99, 99)):
        assert true <= value <= true * 1.05
    assert histogram.take() == Quantiles()
    histogram.add(0.0)
    histogram.add(1e9)
    assert histogram.take().p50 == 0.05


def test_the_readings_of_this_very_machine_can_be_taken():
    assert 0 < memory_in_use() < 1
    assert meter(None).read(1.0).used > 0
