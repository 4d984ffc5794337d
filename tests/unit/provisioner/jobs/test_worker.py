from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from provisioner import retry
from provisioner.jobs import owner
from provisioner.joining import JoinFailed
from secbeat import ids
from secbeat.errors import SecbeatError
from secbeat.settings import BlueprintSettings
from secbeat.store import Unavailable
from secbeat.wire.jobs import JobError


def join_failed(code):
    return JoinFailed(JobError(code=code, message="no secret", retryable=code != "OPERATION_ENDED"))


async def test_a_create_ends_with_its_machine_and_leaves_the_queue_empty(world):
    world.start()
    taken = await world.send()
    job = await world.finish(taken.job.op_id)
    assert (job.state, job.attempt, job.owner) == ("succeeded", 1, "test-host:1:1")
    assert job.machine.address == "127.0.9.9"
    await world.until(lambda: world.queue.waiting == [])
    assert (await world.store.machine(job.node_id)).machine == job.machine
    assert [ended.op_id for ended in world.ended] == [job.op_id]
    assert world.limits.open_jobs() == 0


async def test_the_machines_record_is_written_before_the_engine_starts(world):
    world.engine.gate.clear()
    world.start()
    taken = await world.send()
    await world.until(lambda: world.engine.running == 1)
    record = await world.store.machine(taken.job.node_id)
    assert record is not None
    assert record.machine is None


async def test_a_destroy_drops_the_machines_record(world):
    world.start()
    created = (await world.send()).job
    await world.finish(created.op_id)
    destroyed = await world.finish((await world.send(action="destroy", node_id=created.node_id)).job.op_id)
    assert destroyed.state == "succeeded"
    assert await world.store.machine(created.node_id) is None
    assert world.limits.machines() == {}


async def test_a_destroy_that_the_target_contradicts_has_failed_and_keeps_the_record(world):
    world.start()
    created = (await world.send()).job
    await world.finish(created.op_id)
    world.lister.shows(created.node_id)
    destroyed = await world.finish((await world.send(action="destroy", node_id=created.node_id)).job.op_id)
    assert (destroyed.state, destroyed.error.code) == ("failed", "DESTROY_UNPROVED")
    assert await world.store.machine(created.node_id) is not None


async def test_a_destroy_of_a_machine_that_nobody_knows_is_no_error(world):
    world.start()
    assert (await world.finish((await world.send(action="destroy")).job.op_id)).state == "succeeded"


async def test_a_failed_playbook_is_reported_at_once_with_its_reason(world, failing):
    world.engine.outcomes = [failing("PLAYBOOK_FAILED", "task 'X' failed", task="X")]
    world.start()
    job = await world.finish((await world.send()).job.op_id)
    assert (job.state, job.attempt, job.error.task) == ("failed", 1, "X")
    assert await world.store.machine(job.node_id) is not None  # it counts until its teardown is proved


async def test_a_crashed_attempt_is_repeated_after_a_sweep(world, failing):
    world.engine.outcomes = [failing("JOB_CRASHED"), None, None]
    world.start()
    job = await world.finish((await world.send()).job.op_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert world.swept == [job.op_id]


async def test_repeating_ends_and_the_last_reason_is_reported(world, failing):
    world.engine.outcomes = [failing("JOB_CRASHED", "killed")]
    world.start()
    job = await world.finish((await world.send()).job.op_id, seconds=200)
    assert (job.state, job.attempt, job.error.code) == ("failed", retry.MAX_ATTEMPTS, "JOB_CRASHED")


async def test_a_job_is_not_started_after_its_deadline(make_world):
    world = make_world(max_concurrent_jobs=1)
    world.engine.gate.clear()
    world.start()
    first = await world.send()
    await world.until(lambda: world.engine.running == 1)
    late = await world.send(seconds=20)
    await world.clock.advance(30)
    world.engine.gate.set()
    job = await world.finish(late.job.op_id)
    assert (job.state, job.error.code, job.attempt) == ("failed", "DEADLINE_PASSED", 0)
    assert (await world.finish(first.job.op_id)).state == "succeeded"
    assert len(world.engine.jobs) == 1


async def test_a_create_gets_no_more_time_than_its_deadline_leaves(world):
    world.start()
    await world.finish((await world.send(seconds=30)).job.op_id)
    assert world.engine.jobs[0].timeout_seconds <= 30


async def test_jobs_run_side_by_side_up_to_the_global_limit(make_world):
    world = make_world(max_concurrent_jobs=3)
    world.engine.gate.clear()
    world.start()
    ops = [(await world.send()).job.op_id for _ in range(8)]
    await world.until(lambda: world.engine.running == 3)
    await world.clock.advance(20)
    world.engine.gate.set()
    for op_id in ops:
        await world.finish(op_id)
    assert world.engine.most_running == 3


async def test_one_blueprint_at_its_limit_does_not_hold_up_another(make_world):
    settings = {"default": BlueprintSettings(max_parallel_jobs=1), "other": BlueprintSettings()}
    world = make_world(blueprints=settings, max_concurrent_jobs=4)
    world.engine.gate.clear()
    world.start()
    for _ in range(3):
        await world.send()
    await world.send(blueprint="other")
    await world.until(lambda: world.engine.running == 2)
    await world.clock.advance(20)
    assert sorted(job.blueprint.name for job in world.engine.jobs) == ["default", "other"]
    world.engine.gate.set()


async def test_two_jobs_of_one_node_never_run_together(world):
    world.engine.gate.clear()
    world.start()
    created = (await world.send()).job
    await world.until(lambda: world.engine.running == 1)
    destroy = await world.send(action="destroy", node_id=created.node_id)
    await world.clock.advance(20)
    assert [job.action for job in world.engine.jobs] == ["create"]
    world.engine.gate.set()
    assert (await world.finish(destroy.job.op_id)).state == "succeeded"
    assert world.engine.most_running == 1


async def test_a_long_job_is_not_delivered_a_second_time(world):
    world.engine.gate.clear()
    world.start()
    taken = await world.send(seconds=3600)
    await world.until(lambda: world.engine.running == 1)
    await world.clock.advance(300)
    world.engine.gate.set()
    job = await world.finish(taken.job.op_id)
    assert job.attempt == 1
    assert len(world.engine.jobs) == 1


async def test_a_job_of_a_dead_process_is_taken_over(world):
    taken = await world.send()
    host = owner.this_process().split(":")[0]
    dead = {"state": "running", "owner": f"{host}:999999999:1", "attempt": 1}
    await world.store.change(taken.job.op_id, lambda job: job.model_copy(update=dead))
    world.start()
    job = await world.finish(taken.job.op_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert world.swept == [job.op_id]


async def test_a_job_of_a_living_process_is_left_to_it(world):
    taken = await world.send()
    living = {"state": "running", "owner": owner.this_process(), "attempt": 1}
    await world.store.change(taken.job.op_id, lambda job: job.model_copy(update=living))
    world.start()
    await world.clock.advance(120)
    assert world.engine.jobs == []
    assert world.queue.waiting == [taken.job.op_id]


async def test_a_job_that_another_process_has_finished_meanwhile_is_acknowledged(world):
    taken = await world.send()
    living = {"state": "running", "owner": owner.this_process(), "attempt": 1}
    await world.store.change(taken.job.op_id, lambda job: job.model_copy(update=living))
    world.start()
    await world.clock.advance(10)
    elsewhere = (await world.job(taken.job.op_id)).model_copy(update={"state": "succeeded"})
    await world.bucket.put(f"job.{taken.job.op_id}", elsewhere.encode())
    await world.until(lambda: world.queue.waiting == [])
    assert world.engine.jobs == []


async def test_a_new_job_starts_before_the_queue_delivers_it_and_runs_once(world):
    world.intake.on_written = world.worker.start_now
    world.start()
    await world.until(lambda: world.worker._taking)
    take, held = world.queue.take, asyncio.Event()

    async def late(timeout):
        await held.wait()
        return await take(timeout)

    world.queue.take = late
    await world.clock.advance(6)  # the take that is under way ends
    taken = await world.send()
    job = await world.finish(taken.job.op_id)
    assert job.state == "succeeded"
    assert world.queue.waiting == [job.op_id]
    held.set()
    await world.until(lambda: world.queue.waiting == [])
    assert len(world.engine.jobs) == 1


async def test_a_delivery_of_a_job_that_was_started_already_is_its_answer(world):
    world.intake.on_written = world.worker.start_now
    world.engine.gate.clear()
    world.start()
    await world.until(lambda: world.worker._taking)
    taken = await world.send(seconds=3600)
    await world.until(lambda: world.engine.running == 1)
    await world.clock.advance(200)
    world.engine.gate.set()
    job = await world.finish(taken.job.op_id)
    await world.until(lambda: world.queue.waiting == [])
    assert (job.attempt, len(world.engine.jobs)) == (1, 1)


async def test_a_job_that_was_started_but_not_enqueued_runs_and_is_known_to_the_retry(world):
    world.intake.on_written = world.worker.start_now
    world.start()
    await world.until(lambda: world.worker._taking)
    body = world.body()
    put = world.queue.put

    async def away(op_id):
        raise Unavailable("away")

    world.queue.put = away
    with pytest.raises(SecbeatError) as caught:
        await world.send(body)
    assert caught.value.status == 503
    world.queue.put = put
    assert (await world.finish(body.operation.op_id)).state == "succeeded"
    assert (await world.send(body)).status == "known"


async def test_no_job_is_started_early_beyond_the_limit_of_concurrency(make_world):
    world = make_world(max_concurrent_jobs=2)
    world.intake.on_written = world.worker.start_now
    world.engine.gate.clear()
    world.start()
    await world.until(lambda: world.worker._taking)
    ops = [(await world.send()).job.op_id for _ in range(6)]
    await world.until(lambda: world.engine.running == 2)
    await world.clock.advance(20)
    assert world.engine.running == 2
    world.engine.gate.set()
    for op_id in ops:
        await world.finish(op_id)
    assert world.engine.most_running == 2


async def test_recovery_takes_dead_jobs_at_once_and_enqueues_forgotten_ones(world):
    running, queued = (await world.send()).job, (await world.send()).job
    host = owner.this_process().split(":")[0]
    dead = {"state": "running", "owner": f"{host}:999999999:1", "attempt": 1}
    await world.store.change(running.op_id, lambda job: job.model_copy(update=dead))
    world.queue._messages.clear()
    world.queue._seen.clear()
    await world.upkeep().recover()
    await world.finish(running.op_id, seconds=5)
    assert world.queue.waiting == [queued.op_id]


async def test_a_job_that_never_comes_to_an_end_is_given_up(world):
    taken = await world.send()
    host = owner.this_process().split(":")[0]
    poison = {"state": "running", "owner": f"{host}:999999999:1", "attempt": retry.MAX_ATTEMPTS}
    await world.store.change(taken.job.op_id, lambda job: job.model_copy(update=poison))
    world.start()
    job = await world.finish(taken.job.op_id)
    assert (job.state, job.error.code) == ("failed", "JOB_POISON")
    assert world.engine.jobs == []


async def test_a_finished_job_that_is_delivered_again_is_only_acknowledged(world):
    world.start()
    job = await world.finish((await world.send()).job.op_id)
    world.queue._seen.clear()
    await world.queue.put(job.op_id)
    await world.until(lambda: world.queue.waiting == [])
    assert len(world.engine.jobs) == 1


async def test_a_waiting_job_is_cancelled_without_ever_running(make_world):
    world = make_world(max_concurrent_jobs=1)
    world.engine.gate.clear()
    world.start()
    await world.send()
    await world.until(lambda: world.engine.running == 1)
    waiting = (await world.send()).job
    cancelled = await world.worker.request_cancel(waiting.op_id)
    assert cancelled.state == "cancelled"
    world.engine.gate.set()
    await world.until(lambda: world.queue.waiting == [])
    assert len(world.engine.jobs) == 1
    assert (await world.job(waiting.op_id)).state == "cancelled"
    assert world.limits.open_jobs() == 0


async def test_a_running_job_is_cancelled_by_its_record_even_when_the_hint_was_lost(world):
    world.engine.gate.clear()
    world.start()
    taken = await world.send()
    await world.until(lambda: world.engine.running == 1)
    await world.clock.advance(2)
    asked = {"cancel_requested_at": world.clock.now()}
    await world.store.change(taken.job.op_id, lambda job: job.model_copy(update=asked))
    world.worker.cancel("nothing")
    reporter_sees = world.worker.cancel(taken.job.op_id)
    assert reporter_sees
    job = await world.finish(taken.job.op_id)
    assert (job.state, job.error.code) == ("cancelled", "JOB_CANCELLED")


async def test_the_end_of_a_job_is_stored_however_long_the_store_is_away(world):
    world.engine.gate.clear()
    world.start()
    taken = await world.send()
    await world.until(lambda: world.engine.running == 1)
    await world.clock.advance(2)
    get, away = world.bucket.get, True

    async def flaky(key):
        if away:
            raise Unavailable("away")
        return await get(key)

    world.bucket.get = flaky
    world.engine.gate.set()
    await world.clock.advance(60)
    away = False
    job = await world.finish(taken.job.op_id)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert len(world.engine.jobs) == 1


async def test_a_machine_directory_that_cannot_be_written_fails_the_job_and_makes_no_machine(world):
    taken_body = world.body()
    name = ids.machine_name("default", taken_body.operation.node_id)
    (world.root / "machines").mkdir()
    (world.root / "machines" / name).write_text("in the way")
    world.start()
    job = await world.finish((await world.send(taken_body)).job.op_id)
    assert (job.state, job.error.code, job.error.retryable) == ("failed", "MACHINE_DIR_UNWRITABLE", True)
    assert name in job.error.message
    assert world.engine.jobs == []
    assert await world.store.machine(job.node_id) is None


async def test_the_join_secret_is_in_its_file_and_nowhere_in_the_engines_job(world):
    world.start()
    job = await world.finish((await world.send()).job.op_id)
    path = world.root / "machines" / ids.machine_name("default", job.node_id) / "join.json"
    assert json.loads(path.read_text())["secret"] == "join-secret-of-this-job"
    assert path.stat().st_mode & 0o777 == 0o600
    (engine_job,) = world.engine.jobs
    assert "join-secret-of-this-job" not in f"{engine_job.request}{engine_job.site}"
    assert engine_job.redactor.text("join-secret-of-this-job") == "[secret]"


async def test_no_secret_is_asked_for_unsigned_senders(world):
    world.start()
    from secbeat.wire.webhook import UnsignedBody

    raw = json.dumps({"reason": "HIGH_FLEET_CPU_LOAD", "timestamp": "2026-01-01T00:00:00Z"}).encode()
    taken = await world.unsigned.request(UnsignedBody.decode(raw), raw)
    job = await world.finish(taken.job.op_id)
    assert job.state == "succeeded"
    assert world.joins.asked == []
    assert not (world.root / "machines").exists()


async def test_a_secret_that_cannot_be_had_yet_is_asked_for_again_with_pauses(world):
    world.joins.failures = [join_failed("JOIN_SECRET_UNAVAILABLE"), join_failed("JOIN_SECRET_UNAVAILABLE")]
    world.start()
    job = await world.finish((await world.send()).job.op_id)
    assert (job.state, job.attempt) == ("succeeded", 3)
    assert len(world.engine.jobs) == 1


async def test_an_ended_operation_is_not_carried_out(world):
    world.joins.failures = [join_failed("OPERATION_ENDED")]
    world.start()
    job = await world.finish((await world.send()).job.op_id)
    assert (job.state, job.error.code) == ("failed", "OPERATION_ENDED")
    assert world.engine.jobs == []


async def test_a_node_that_joined_before_its_job_was_interrupted_is_finished_without_a_new_secret(world):
    taken = await world.send()
    host = owner.this_process().split(":")[0]
    dead = {"state": "running", "owner": f"{host}:999999999:1", "attempt": 1}
    await world.store.change(taken.job.op_id, lambda job: job.model_copy(update=dead))
    world.joins.failures = [join_failed("OPERATION_ENDED")]
    world.lister.shows(taken.job.node_id)
    world.start()
    assert (await world.finish(taken.job.op_id)).state == "succeeded"


async def test_progress_and_hints_are_sent_while_it_runs(world):
    world.engine.gate.clear()
    world.start()
    taken = await world.send()

    async def working():
        return (await world.job(taken.job.op_id)).progress.stage == "Working"

    await world.until(working)
    world.engine.gate.set()
    await world.finish(taken.job.op_id)
    hints = [json.loads(data) for subject, data in world.messaging.published if taken.job.op_id in subject]
    assert {"state": "running", "stage": "Working"}.items() <= hints[-2].items()
    assert hints[-1]["state"] == "succeeded"


async def test_a_result_that_names_another_machine_fails_the_job(world):
    from provisioner.engine.base import Outcome

    world.engine.outcomes = [Outcome(result={"id": "i", "name": "other", "address": "127.0.0.1"})]
    world.start()
    job = await world.finish((await world.send()).job.op_id)
    assert (job.state, job.error.code, job.error.retryable) == ("failed", "RESULT_INVALID", False)


async def test_stopping_the_worker_leaves_its_jobs_for_the_next_one(world):
    world.engine.gate.clear()
    task = world.start()
    taken = await world.send()
    await world.until(lambda: world.engine.running == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.engine.running == 0
    assert (await world.job(taken.job.op_id)).state == "running"
    assert world.queue.waiting == [taken.job.op_id]
    world.engine.gate.set()
    world.queue.redeliver()
    world.start(world.make_worker(owner="test-host:2:2"))
    assert (await world.finish(taken.job.op_id)).owner == "test-host:2:2"


async def test_old_finished_jobs_are_forgotten_with_their_logs_and_slots(world):
    world.start()
    job = await world.finish((await world.send()).job.op_id)
    assert world.hub.path(job.op_id).exists()
    await world.bucket.create("unsigned.scaleup.default", job.op_id.encode())
    await world.unsigned.cluster_id()
    upkeep = world.upkeep(retention=timedelta(days=30))
    await upkeep.once()
    assert await world.store.get(job.op_id) is not None
    world.clock.jump(31 * 86400)
    await upkeep.once()
    await upkeep.once()
    assert await world.store.get(job.op_id) is None
    assert not world.hub.directory(job.op_id).exists()
    assert [key for key in world.bucket.data if key.startswith("unsigned.")] == ["unsigned.cluster"]


@pytest.mark.parametrize("owner_text", ["", "elsewhere:1:1", "nonsense"])
def test_an_owner_that_cannot_be_seen_from_here_is_unknown(owner_text):
    assert owner.alive(owner_text) is None


def test_this_process_is_alive_and_one_with_another_start_is_not():
    mine = owner.this_process()
    assert owner.alive(mine) is True
    assert owner.alive(mine + "0") is False
