from __future__ import annotations

import asyncio

import pytest

from provisioner.webhook.intake import Refused
from secbeat.settings import BlueprintSettings
from secbeat.store import Unavailable


async def refused(world, body=None, **changes):
    with pytest.raises(Refused) as caught:
        await world.send(body, **changes)
    return caught.value


async def test_a_new_operation_is_on_disk_and_in_the_queue_before_it_is_answered(world):
    taken = await world.send()
    assert taken.status == "accepted"
    assert (await world.job(taken.job.op_id)).state == "queued"
    assert world.queue.waiting == [taken.job.op_id]
    methods = [call.method for call in world.bucket.calls if call.key.startswith("job.")]
    assert methods.index("create") >= 0


async def test_fifty_identical_requests_at_once_make_one_job(world):
    body = world.body()
    taken = await asyncio.gather(*(world.send(body) for _ in range(50)))
    assert sorted(one.status for one in taken) == ["accepted"] + ["known"] * 49
    assert world.queue.waiting == [body.operation.op_id]
    assert world.limits.open_jobs() == 1


async def test_duplicates_do_not_count_against_the_rate(make_world):
    world = make_world(max_creations_per_minute=1)
    body = world.body()
    for _ in range(10):
        await world.send(body)


async def test_two_provisioners_that_get_the_same_request_make_one_job(make_world):
    one, two = make_world(), make_world()
    two.store.bucket = one.bucket
    two.intake._epochs._bucket = one.bucket
    body = one.body()
    first, second = await asyncio.gather(one.send(body), two.send(body))
    assert sorted([first.status, second.status]) == ["accepted", "known"]
    assert one.limits.open_jobs() + two.limits.open_jobs() == 1


async def test_a_lower_epoch_of_the_same_cluster_is_refused(world):
    await world.send(epoch=5)
    error = await refused(world, epoch=4)
    assert (error.code, error.status) == ("EPOCH_TOO_LOW", 409)
    assert (await world.send(epoch=5)).status == "accepted"
    assert (await world.send(epoch=7)).status == "accepted"
    assert (await refused(world, epoch=6)).status == 409


async def test_epochs_of_different_clusters_do_not_meet(world):
    await world.send(epoch=100)
    assert (await world.send(epoch=1, cluster_id="00000000-0000-4000-8000-000000000001")).status == "accepted"


async def test_an_epoch_that_could_not_be_stored_accepts_nothing(world):
    world.bucket.next_error = Unavailable("away")
    error = await refused(world)
    assert (error.code, error.status, error.headers) == ("STATE_UNAVAILABLE", 503, {"Retry-After": "5"})
    assert world.queue.waiting == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"blueprint": "nope"}, "BLUEPRINT_UNKNOWN"), ({"seconds": -31}, "DEADLINE_PASSED")],
)
async def test_what_can_never_be_done_is_422(world, changes, code):
    error = await refused(world, **changes)
    assert (error.code, error.status) == (code, 422)
    assert world.queue.waiting == []


async def test_an_action_at_the_wrong_door_is_422(world):
    body = world.body(action="destroy")
    with pytest.raises(Refused) as caught:
        await world.intake.operation(body, webhook_id=body.operation.op_id, action="create")
    assert (caught.value.code, caught.value.status) == ("WEBHOOK_ACTION", 422)


async def test_an_id_that_is_not_the_operations_is_422(world):
    with pytest.raises(Refused) as caught:
        await world.intake.operation(world.body(), webhook_id="other", action="create")
    assert (caught.value.code, caught.value.status) == ("WEBHOOK_ID", 422)


async def test_limits_hold_whatever_the_sender_says_and_name_a_time_to_come_back(make_world):
    world = make_world(blueprints={"default": BlueprintSettings(max_machines=2)})
    await world.send()
    await world.send()
    error = await refused(world)
    assert (error.code, error.status) == ("POOL_MACHINES_LIMIT", 429)
    assert int(error.headers["Retry-After"]) > 0


async def test_a_job_that_was_written_but_not_enqueued_is_enqueued_by_the_retry(world):
    body = world.body()
    world.queue.next_error = Unavailable("away")
    assert (await refused(world, body)).status == 503
    assert world.queue.waiting == []
    taken = await world.send(body)
    assert taken.status == "known"
    assert world.queue.waiting == [body.operation.op_id]


async def test_a_write_whose_confirmation_was_lost_counts_as_made(world):
    body = world.body()
    await world.intake._epochs.admit(world.cluster_id, 1)
    world.bucket.lost_reply = Unavailable("lost")
    assert (await world.send(body)).status == "accepted"
    assert world.queue.waiting == [body.operation.op_id]


async def test_a_write_that_failed_leaves_nothing_counted(world):
    body = world.body()
    await world.intake._epochs.admit(world.cluster_id, 1)
    create = world.bucket.create

    async def away(key, value):
        raise Unavailable("away")

    world.bucket.create = away
    assert (await refused(world, body)).status == 503
    assert world.limits.open_jobs() == 0
    world.bucket.create = create
    assert (await world.send(body)).status == "accepted"
