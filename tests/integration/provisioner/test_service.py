"""The whole service: webhook to playbook to record, with a real nats-server, real ansible-runner, real processes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import psutil
import pytest

from provisioner.engine import marks
from secbeat import auth, bus, ids, subjects
from secbeat.settings import NatsSettings

SITE_TOKEN = "site+token/with=odd chars"
SLOW = "Wait for a long time"


def machine_dir(service, node_id):
    return service.state / "machines" / ids.machine_name("default", node_id)


def runs(service, node_id):
    return (machine_dir(service, node_id) / "runs").read_text().splitlines()


async def no_process_of(op_id, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not marks.marked(op_id):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_signed_create_runs_the_playbook_and_reports_the_machine(service, jobs_bucket):
    operation = service.operation()
    status, answer, _ = await service.send(operation)
    assert status == 202, answer
    assert answer["op_id"] == operation["op_id"]
    job = await service.ended(operation["op_id"])
    assert job.state == "succeeded", job
    assert job.machine.address == "127.0.9.9"
    assert job.machine.name == ids.machine_name("default", operation["node_id"])
    assert job.machine.blueprint_digest == job.blueprint_digest != ""
    assert await jobs_bucket.get(f"machine.{operation['node_id']}") is not None


async def test_a_destroy_removes_the_machine_and_its_record(service, jobs_bucket, monkeypatch):
    operation = service.operation()
    await service.send(operation)
    await service.ended(operation["op_id"])
    destroy = service.operation(action="destroy", node_id=operation["node_id"])
    assert (await service.send(destroy))[0] == 202
    job = await service.ended(destroy["op_id"])
    assert job.state == "succeeded", job
    assert not machine_dir(service, operation["node_id"]).exists()
    assert await jobs_bucket.get(f"machine.{operation['node_id']}") is None


async def test_a_machine_is_destroyed_by_the_revision_that_made_it(service):
    operation = service.operation()
    await service.send(operation)
    made = await service.ended(operation["op_id"])
    playbook = service.state.parent / "project/playbooks/scale_down.yml"
    playbook.write_text("- hosts: localhost\n  tasks:\n    - ansible.builtin.fail: {msg: the new revision}\n")
    destroy = service.operation(action="destroy", node_id=operation["node_id"])
    await service.send(destroy)
    job = await service.ended(destroy["op_id"])
    assert job.state == "succeeded", job.error
    assert job.blueprint_digest == made.blueprint_digest


async def test_fifty_identical_requests_at_once_make_one_job_and_one_run(service):
    operation = service.operation()
    answers = await asyncio.gather(*(service.send(operation) for _ in range(50)))
    assert sorted(status for status, _, _ in answers) == [200] * 49 + [202]
    await service.ended(operation["op_id"])
    assert runs(service, operation["node_id"]) == ["run"]
    assert service.joins.asked == [operation["op_id"]]
    status, answer, _ = await service.send(operation)
    assert status == 200
    assert answer["job"]["state"] == "succeeded"


async def test_the_join_file_is_private_and_holds_the_secret_that_the_orchestrator_gave(service):
    operation = service.operation()
    await service.send(operation)
    await service.ended(operation["op_id"])
    path = machine_dir(service, operation["node_id"]) / "join.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    content = json.loads(path.read_text())
    assert content["secret"] == service.joins.secrets[0]
    assert content["server_url"] == service.joins.url
    assert content["node_id"] == operation["node_id"]


async def test_a_file_in_the_place_of_the_machines_directory_fails_the_job_with_its_reason(service, jobs_bucket):
    operation = service.operation()
    place = machine_dir(service, operation["node_id"])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("in the way")
    await service.send(operation)
    job = await service.ended(operation["op_id"])
    assert job.state == "failed"
    assert job.error.code == "MACHINE_DIR_UNWRITABLE"
    assert str(place) in job.error.message
    assert job.error.retryable
    assert await jobs_bucket.get(f"machine.{operation['node_id']}") is None
    place.unlink()
    again = service.operation()
    await service.send(again)
    assert (await service.ended(again["op_id"])).state == "succeeded"


async def test_a_join_secret_that_cannot_be_had_yet_is_asked_for_again(service):
    service.joins.status = 503
    operation = service.operation()
    await service.send(operation)

    async def asked_twice():
        return len(service.joins.asked) >= 2

    await service.until(asked_twice, "the service asks again")
    service.joins.status = 200
    job = await service.ended(operation["op_id"])
    assert job.state == "succeeded"
    assert job.attempt >= 3


async def test_an_operation_that_the_orchestrator_has_ended_fails_at_once(service):
    service.joins.status = 409
    operation = service.operation()
    await service.send(operation)
    job = await service.ended(operation["op_id"])
    assert (job.state, job.error.code, job.attempt) == ("failed", "OPERATION_ENDED", 1)


async def test_a_cancelled_job_says_so_and_leaves_no_process(service):
    operation = service.operation()
    await service.send(operation, reason="SLOW")
    await service.reaches(operation["op_id"], SLOW)
    token = auth.TokenBook.issue(service.state / "secrets" / "tokens.json", name="test", scope="operate")
    await service.stop()
    await service.start()  # tokens are read at the start; the job goes on as a new attempt meanwhile
    await service.reaches(operation["op_id"], SLOW)
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{service.url}/jobs/{operation['op_id']}/cancel"
    async with service.session.post(url) as answer:
        assert answer.status == 401
    async with service.session.post(url, headers=headers) as answer:
        assert answer.status == 202
    job = await service.ended(operation["op_id"])
    assert job.state == "cancelled"
    assert job.error.code == "JOB_CANCELLED"
    assert marks.marked(operation["op_id"]) == []
    async with service.session.post(url, headers=headers) as answer:
        assert answer.status == 409


async def test_a_job_survives_the_kill_of_the_service_and_no_process_of_the_old_run_does(service):
    operation = service.operation(deadline=(datetime.now(UTC) + timedelta(seconds=300)).isoformat())
    await service.send(operation, reason="SLOW")
    before = await service.reaches(operation["op_id"], SLOW)

    async def deep_in_work():
        with suppress(psutil.NoSuchProcess):
            return any("sleep" in process.name() for process in marks.marked(operation["op_id"]))

    await service.until(deep_in_work, "the command of the task runs")
    forks = psutil.Process(service.process.pid).children()
    await service.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(forks, timeout=20)
    assert not alive
    assert await no_process_of(operation["op_id"])
    slow = service.state.parent / "project/playbooks/tasks/slow.yml"
    slow.write_text("- name: Quick now\n  ansible.builtin.debug: {msg: x}\n")
    await service.start()
    job = await service.ended(operation["op_id"])
    assert job.state == "succeeded"
    assert job.attempt == before.attempt + 1
    assert job.owner != before.owner
    assert runs(service, operation["node_id"]) == ["run", "run"]  # the same machine, found by its name
    assert "--- attempt 2" in (await service.read_log(operation["op_id"])).decode()


async def test_a_request_accepted_just_before_the_kill_is_done_by_the_next_process(service):
    operation = service.operation()
    assert (await service.send(operation))[0] == 202
    os.kill(service.process.pid, signal.SIGKILL)
    await service.process.wait()
    await service.start()
    assert (await service.ended(operation["op_id"])).state == "succeeded"


async def test_a_followed_log_is_whole_and_ends_with_the_job(service):
    operation = service.operation()
    await service.send(operation, reason="LINES")
    followed = asyncio.create_task(service.read_log(operation["op_id"], "?follow=1"))
    await service.ended(operation["op_id"])
    ended = time.monotonic()
    text = await followed
    assert time.monotonic() - ended <= 2.0
    assert text == (service.state / "jobs" / operation["op_id"] / "log").read_bytes()
    for number in range(12):
        assert f"(item={number})" in text.decode()
    for offset in (0, 1, len(text) // 2, len(text), len(text) + 10):
        assert await service.read_log(operation["op_id"], f"?offset={offset}&follow=1") == text[offset:]


async def test_a_line_of_two_megabytes_is_in_the_log_and_does_not_disturb(service):
    operation = service.operation()
    await service.send(operation, reason="LONG")
    assert (await service.ended(operation["op_id"])).state == "succeeded"
    text = await service.read_log(operation["op_id"])
    assert b"begin" + b"x" * 2_000_000 + b"end" in text


async def test_progress_is_written_while_the_job_runs(service):
    operation = service.operation()
    await service.send(operation, reason="SLOW")
    job = await service.reaches(operation["op_id"], SLOW)
    assert job.state == "running"
    assert job.progress.tasks_done >= 3


async def test_no_secret_appears_anywhere_but_in_the_join_file(service):
    operation = service.operation()
    await service.send(operation, reason="SECRET")
    sampled = set()

    async def ended():
        for process in marks.marked(operation["op_id"]):
            try:
                sampled.update([*process.cmdline(), *(f"{k}={v}" for k, v in process.environ().items())])
            except psutil.Error:
                continue
        return (await service.job(operation["op_id"])).state in {"succeeded", "failed"}

    await service.until(ended, "the job ends", seconds=60)
    job = await service.job(operation["op_id"])
    assert job.state == "succeeded", job.error
    (join_secret,) = service.joins.secrets
    secrets = {
        "join secret": join_secret,
        "webhook secret": service.secret.removeprefix("whsec_"),
        "service token": "the-service-token",
        "site token": SITE_TOKEN,
        "base64 of the site token": base64.b64encode(SITE_TOKEN.encode()).decode(),
        "url form of the site token": quote(SITE_TOKEN),
        "the service's environment": "canary-in-the-environment",
    }
    files = [path for path in service.state.rglob("*") if path.is_file() and "secrets" not in path.parts]
    allowed = {machine_dir(service, operation["node_id"]) / "join.json"}
    # The operator's own configuration, and the copy of it with which a machine is destroyed.
    config = {path for path in files if path.name in {"blueprint.json", "secbeat.toml"}}
    places = {str(path): path.read_bytes() for path in files if path not in allowed | config}
    places["record"] = job.encode()
    places["argv and environment of the job"] = "\n".join(sorted(sampled)).encode()
    assert "TASK [Use the token [secret]]" in (await service.read_log(operation["op_id"])).decode()
    for what, secret in secrets.items():
        found = [place for place, content in places.items() if secret.encode() in content]
        assert not found, f"{what} in {found}"


async def test_the_private_directory_of_a_job_is_gone_afterwards(service):
    operation = service.operation()
    await service.send(operation)
    await service.ended(operation["op_id"])
    left = sorted(path.name for path in (service.state / "jobs" / operation["op_id"]).iterdir())
    assert left == ["events.jsonl", "log"]


async def test_a_request_with_a_wrong_signature_is_refused_even_from_loopback(service):
    operation = service.operation()
    service.secret = "whsec_" + base64.b64encode(b"x" * 32).decode()
    status, answer, _ = await service.send(operation)
    assert (status, answer["code"]) == (401, "SIGNATURE_INVALID")
    async with service.session.get(f"{service.url}/jobs") as listed:
        assert (await listed.json())["items"] == []


async def test_a_node_of_an_unsigned_sender_is_made_and_torn_down_after_its_last_heartbeat(service, nats):
    payload = {
        "reason": "PREDICTED_HIGH_FLEET_CPU_LOAD",
        "timestamp": "2026-01-01T00:00:00.123456789Z",
        "fleet_metrics": {"active_nodes": 1, "avg_cpu_usage": 85.5, "avg_memory_usage": 40.1, "total_connections": 3},
        "prediction_info": None,
    }
    playbook = service.state.parent / "project/playbooks/tasks"
    (playbook / "predicted_high_fleet_cpu_load.yml").write_text((playbook / "ok.yml").read_text())
    async with service.session.post(f"{service.url}/provision", json=payload) as answer:
        assert answer.status == 202
        accepted = await answer.json()
    job = await service.ended(accepted["op_id"])
    assert (job.state, job.signed) == ("succeeded", False)
    assert service.joins.asked == []
    assert not (machine_dir(service, job.node_id) / "join.json").exists()

    client = await bus.connect(NatsSettings(url=nats.url), name="node")
    last = {"v": 1, "node_id": job.node_id, "status": "Terminating"}

    async def torn_down():
        # Said again until it was heard: the service learns of a new machine within seconds, not at once.
        await client.messaging.publish(subjects.heartbeat(job.node_id), json.dumps(last).encode())
        return not machine_dir(service, job.node_id).exists()

    await service.until(torn_down, "the machine is removed", seconds=60)
    await client.close()
    async with service.session.get(f"{service.url}/jobs") as listed:
        jobs = (await listed.json())["items"]
    assert [(one["action"], one["reason"]) for one in jobs if one["node_id"] == job.node_id] == [
        ("destroy", "UNSIGNED_TEARDOWN"),
        ("create", "PREDICTED_HIGH_FLEET_CPU_LOAD"),
    ]


async def test_limits_are_read_again_on_sighup(service):
    config = service.state / "secbeat.toml"
    config.write_text(
        config.read_text().replace("[blueprints.default]\n", "[blueprints.default]\nmax_machines = 0\n", 1)
    )
    service.process.send_signal(signal.SIGHUP)

    async def refused():
        status, answer, _ = await service.send(service.operation())
        return status == 429 and answer["code"] == "POOL_MACHINES_LIMIT"

    await service.until(refused, "the new limit holds")


async def test_the_service_describes_itself(service):
    for path in ("/healthz", "/readyz", "/metrics", "/api/openapi.json", "/docs", "/blueprints", "/machines", "/jobs"):
        async with service.session.get(service.url + path) as answer:
            assert answer.status == 200, path


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"SECBEAT_BLUEPRINTS__DEFAULT__CREATE_PLAYBOOK": "nowhere"}, "PLAYBOOK_NOT_FOUND"),
        ({"SECBEAT_BLUEPRINTS__DEFAULT__VARIABLES__ANSIBLE_CONNECTION": "local"}, "BLUEPRINT_INVALID"),
        ({"SECBEAT_NATS__URL": "nats://127.0.0.1:1"}, "NATS_UNREACHABLE"),
        ({"SECBEAT_PROVISIONER__LISTEN_ADDR": "0.0.0.0:0"}, "BIND_INSECURE"),
    ],
)
async def test_a_start_that_cannot_work_ends_with_one_sentence_and_code_2(make_service, variables, code):
    service = make_service(**variables)
    with pytest.raises(AssertionError) as caught:
        await service.start()
    assert service.process.returncode == 2
    assert f"error[{code}]" in str(caught.value)
    assert "Traceback" not in str(caught.value)


async def test_a_provisioner_waits_for_one_on_the_same_state_that_is_about_to_end(service):
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "provisioner", "--config", str(service.state / "secbeat.toml"),
        env=service.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while b"waiting for its end" not in await second.stdout.readline():
                pass
            await service.stop()
            while b"Listening at" not in await second.stdout.readline():
                pass
    finally:
        second.terminate()
        await second.communicate()


async def test_a_second_provisioner_on_the_same_state_is_refused_until_the_first_has_ended(service, make_service):
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "provisioner", "--config", str(service.state / "secbeat.toml"),
        env=service.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await second.communicate()
    assert second.returncode == 2
    assert b"error[STATE_IN_USE]" in said
    assert f"another provisioner (pid {service.process.pid})".encode() in said
    assert b"Traceback" not in said
    await service.stop(signal.SIGKILL)
    await service.start()
