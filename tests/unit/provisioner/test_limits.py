from __future__ import annotations

from datetime import timedelta

import pytest

from provisioner.limits import Limits
from secbeat import ids
from secbeat.settings import BlueprintSettings, ProvisionerSettings
from secbeat.testing import FakeClock
from secbeat.wire.jobs import JobError, JobRecord, MachineRecord


class Bench:
    def __init__(self, *, pool_limit=100, **settings):
        self.clock = FakeClock()
        self.limits = Limits(ProvisionerSettings(**settings), self.clock)
        self.blueprint = BlueprintSettings(max_machines=pool_limit)

    def job(self, *, action="create", pool="default", **changes):
        now = self.clock.now()
        values = {
            "op_id": ids.new_op_id(),
            "cluster_id": ids.new_cluster_id(),
            "action": action,
            "pool": pool,
            "node_id": ids.new_node_id(),
            "created_at": now,
            "deadline": now + timedelta(minutes=10),
        }
        return JobRecord(**(values | changes))

    def admit(self, **changes):
        job = self.job(**changes)
        return job, self.limits.admit(job, self.blueprint)

    def end(self, job, state="succeeded", code=None):
        error = JobError(code=code or "PLAYBOOK_FAILED", message="x") if state == "failed" else None
        ended = job.model_copy(update={"state": state, "error": error, "finished_at": self.clock.now()})
        self.limits.ended(ended)
        return ended

    def machine(self, pool="default"):
        return MachineRecord(
            cluster_id=ids.new_cluster_id(), node_id=ids.new_node_id(), op_id=ids.new_op_id(), pool=pool,
            blueprint="default", blueprint_digest="d", target="local", created_at=self.clock.now(),
        )  # fmt: skip


def test_a_pool_never_has_more_machines_than_its_blueprint_allows():
    bench = Bench(pool_limit=3)
    bench.limits.refresh([bench.machine(), bench.machine(), bench.machine("other")])
    assert bench.admit()[1] is None
    refused = bench.admit()[1]
    assert (refused.code, refused.status) == ("POOL_MACHINES_LIMIT", 429)
    assert refused.retry_after > 0
    assert bench.admit(pool="other")[1] is None


def test_creations_that_have_not_ended_count_as_machines():
    bench = Bench(pool_limit=2)
    first, _ = bench.admit()
    bench.admit()
    assert bench.admit()[1].code == "POOL_MACHINES_LIMIT"
    bench.end(first, "failed")
    assert bench.admit()[1] is None


def test_a_machine_that_is_being_created_is_counted_once():
    bench = Bench(pool_limit=2)
    job, _ = bench.admit()
    bench.limits.machine_made(job.node_id, "default")
    assert bench.admit()[1] is None
    bench.end(job)
    assert bench.admit()[1].code == "POOL_MACHINES_LIMIT"
    bench.limits.machine_gone(job.node_id)
    assert bench.admit()[1] is None


def test_all_pools_together_have_a_limit():
    bench = Bench(max_machines=2)
    bench.limits.refresh([bench.machine("a"), bench.machine("b")])
    assert bench.admit(pool="c")[1].code == "TOTAL_MACHINES_LIMIT"


def test_a_destroy_is_never_held_back_by_the_limits_on_creation():
    bench = Bench(pool_limit=0, max_machines=0, max_creations_per_minute=0.001)
    assert bench.admit()[1] is not None
    assert bench.admit(action="destroy")[1] is None


async def test_the_creation_rate_is_a_token_bucket_that_fills_steadily():
    bench = Bench(max_creations_per_minute=2)
    assert bench.admit()[1] is None
    assert bench.admit()[1] is None
    refused = bench.admit()[1]
    assert (refused.code, refused.retry_after) == ("CREATION_RATE", 30)
    await bench.clock.advance(29)
    assert bench.admit()[1].code == "CREATION_RATE"
    await bench.clock.advance(1)
    assert bench.admit()[1] is None
    await bench.clock.advance(3600)
    assert [bench.admit()[1] is None for _ in range(3)] == [True, True, False]


def test_a_job_that_was_not_written_gives_its_token_back():
    bench = Bench(max_creations_per_minute=1)
    job, refused = bench.admit()
    assert refused is None
    bench.limits.withdraw(job.op_id)
    assert bench.admit()[1] is None


def test_a_full_queue_refuses_with_a_time_to_come_back():
    bench = Bench(max_queued_jobs=2)
    job, _ = bench.admit(action="destroy")
    bench.admit(action="destroy")
    refused = bench.admit(action="destroy")[1]
    assert (refused.code, refused.status, refused.retry_after) == ("JOB_QUEUE_FULL", 503, 10)
    bench.end(job)
    assert bench.admit(action="destroy")[1] is None


def fail(bench, times, **changes):
    for _ in range(times):
        job, refused = bench.admit()
        assert refused is None
        bench.end(job, "failed", **changes)


async def test_three_failed_creations_in_a_row_open_the_breaker_of_their_pool_until_it_is_reset():
    bench = Bench(breaker_reset_seconds=600)
    fail(bench, 3)
    refused = bench.admit()[1]
    assert (refused.code, refused.status, refused.retry_after) == ("CREATION_BREAKER_OPEN", 503, 600)
    assert bench.admit(pool="other")[1] is None
    assert bench.limits.open_breakers() == ["default"]
    await bench.clock.advance(600)
    trial, refused = bench.admit()
    assert refused is None
    assert bench.admit()[1].code == "CREATION_BREAKER_OPEN"  # one at a time
    bench.end(trial, "failed")
    assert bench.admit()[1].retry_after == 600
    await bench.clock.advance(600)
    trial, _ = bench.admit()
    bench.end(trial)
    assert bench.admit()[1] is None
    assert bench.limits.open_breakers() == []


def test_a_success_in_between_starts_the_count_again():
    bench = Bench()
    fail(bench, 2)
    job, _ = bench.admit()
    bench.end(job)
    fail(bench, 2)
    assert bench.admit()[1] is None


@pytest.mark.parametrize("code", ["JOB_CANCELLED", "DEADLINE_PASSED"])
def test_a_creation_that_was_never_tried_says_nothing_about_creating(code):
    bench = Bench()
    fail(bench, 5, code=code)
    assert bench.admit()[1] is None


def test_after_a_restart_the_records_say_what_was_counted_before():
    before = Bench()
    failed = []
    for _ in range(3):
        job, _ = before.admit()
        failed.append(before.end(job, "failed"))
    running = before.job(state="running")
    after = Bench(pool_limit=2)
    after.limits.load([*failed, running], [after.machine()])
    assert after.limits.open_jobs() == 1
    assert after.admit()[1].code == "CREATION_BREAKER_OPEN"
    other = Bench(pool_limit=2)
    other.limits.load([running], [other.machine()])
    assert other.admit()[1].code == "POOL_MACHINES_LIMIT"
