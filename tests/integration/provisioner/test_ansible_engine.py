"""The Ansible engine with real ansible-runner: results, failures, stops without orphans, hostile values."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from provisioner.engine import environment, marks
from provisioner.engine.ansible import AnsibleEngine
from provisioner.engine.base import EngineJob
from provisioner.engine.blueprints import Blueprints
from provisioner.engine.forkserver import ForkServer
from provisioner.engine.project import Project
from provisioner.redact import Redactor
from secbeat import ids
from secbeat.settings import BlueprintSettings

PROJECT = Path(__file__).parent / "project"


class Seen:
    """An Observer that keeps what it hears."""

    def __init__(self):
        self.stages, self.text, self.events = [], [], []
        self.reached = asyncio.Event()
        self.waiting_for = ""

    def stage(self, name, tasks_done):
        self.stages.append((name, tasks_done))
        if name == self.waiting_for:
            self.reached.set()

    def output(self, text):
        self.text.append(text)

    def event(self, event):
        self.events.append(event)

    @property
    def log(self):
        return "\n".join(self.text)


class Bench:
    def __init__(self, root, server):
        self.root, self.server = root, server
        self.engine = AnsibleEngine(server)
        self.cancelled = asyncio.Event()
        self.seen = Seen()

    def job(self, reason="OK", **changes):
        op_id = ids.new_op_id()
        variables = changes.pop("variables", {})
        blueprints = Blueprints(
            {"default": BlueprintSettings(variables=variables)}, Project(self.root / "project"), self.root / "revisions"
        )
        request = {"op_id": op_id, "name": "default-12345678", "node_id": "n", "reason": reason}
        request |= changes.pop("request", {})
        values = {
            "op_id": op_id,
            "action": "create",
            "blueprint": blueprints.current("default"),
            "request": request,
            "site": {"machines_dir": str(self.root / "machines"), "canary": str(self.root / "pwned")},
            "work_dir": self.root / "work" / op_id,
            "timeout_seconds": 60.0,
            "redactor": Redactor(),
        }
        return EngineJob(**(values | changes))

    async def run(self, job):
        return await self.engine.run(job, self.seen, self.cancelled)


@pytest.fixture
async def bench(tmp_path):
    shutil.copytree(PROJECT, tmp_path / "project")
    server = ForkServer(environment.base())
    await server.start()
    yield Bench(tmp_path, server)
    await server.close()


def processes_of(op_id):
    return [process.pid for process in marks.marked(op_id)]


async def nothing_left(op_id, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not processes_of(op_id):
            return True
        await asyncio.sleep(0.05)
    return False


async def slow_job_in_its_task(bench, **changes):
    bench.seen.waiting_for = "Wait for a long time"
    job = bench.job("SLOW", **changes)
    running = asyncio.create_task(bench.run(job))
    async with asyncio.timeout(30):
        await bench.seen.reached.wait()
        while len(commands(job.op_id)) < 2:  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.05)
    return job, running


def alive(op_id):
    return [process for process in marks.marked(op_id) if process.is_running()]


def commands(op_id):
    """The two processes that the task's own command starts, once they are what they will be."""
    found = []
    for process in alive(op_id):
        with suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] == ["sleep"]:
                found.append(process)
    return found


async def test_the_result_of_set_stats_comes_back_and_the_private_directory_goes(bench):
    job = bench.job()
    outcome = await bench.run(job)
    assert outcome.error is None
    assert outcome.result["name"] == "default-12345678"
    assert [name for name, _ in bench.seen.stages][:2] == ["Make the directory", "Count the run"]
    assert "TASK [Nothing else]" in bench.seen.log
    assert "\x1b" not in bench.seen.log
    assert "\r" not in bench.seen.log
    assert not job.work_dir.exists()


async def test_a_failure_names_task_host_and_message(bench):
    outcome = await bench.run(bench.job("FAIL"))
    assert outcome.error.code == "PLAYBOOK_FAILED"
    assert outcome.error.task == "Reach the hypervisor"
    assert "'Reach the hypervisor' failed on localhost" in outcome.error.message
    assert "the disk is full" in outcome.error.message


async def test_after_a_rescue_the_failure_that_stopped_the_play_is_reported(bench):
    outcome = await bench.run(bench.job("RESCUED"))
    assert outcome.error.task == "The real failure"
    assert "the real reason" in outcome.error.message


async def test_a_playbook_that_cannot_be_parsed_says_so(bench):
    (bench.root / "project/playbooks/scale_up.yml").write_text(
        "- hosts: localhost\n  tasks:\n    - no_such_module: {}\n"
    )
    outcome = await bench.run(bench.job())
    assert outcome.error.code == "PLAYBOOK_INVALID"
    assert "no_such_module" in outcome.error.message
    assert not outcome.error.retryable


async def test_a_cancelled_job_leaves_no_process(bench):
    job, running = await slow_job_in_its_task(bench)
    assert len(processes_of(job.op_id)) >= 4  # the job, ansible-playbook, its worker, the command
    began = time.monotonic()
    bench.cancelled.set()
    outcome = await running
    assert outcome.error.code == "JOB_CANCELLED"
    assert "Wait for a long time" in outcome.error.message
    assert processes_of(job.op_id) == []
    assert time.monotonic() - began < job.grace_seconds


async def test_a_job_that_takes_too_long_is_stopped_and_leaves_no_process(bench):
    job = bench.job("SLOW", timeout_seconds=3.0)
    outcome = await bench.run(job)
    assert outcome.error.code == "JOB_TIMEOUT"
    assert "3 s" in outcome.error.message
    assert processes_of(job.op_id) == []


async def test_a_job_that_says_nothing_is_stopped(bench):
    job = bench.job("SLOW", idle_seconds=3.0)
    outcome = await bench.run(job)
    assert outcome.error.code == "JOB_TIMEOUT"
    assert "no output for 3 s" in outcome.error.message
    assert processes_of(job.op_id) == []


async def test_a_job_process_that_is_killed_is_reported_and_swept(bench):
    job, running = await slow_job_in_its_task(bench)
    (leader,) = (one for one in psutil.Process(bench.server.pid).children() if one.children())
    leader.send_signal(signal.SIGKILL)
    outcome = await running
    assert outcome.error.code == "JOB_CRASHED"
    assert outcome.error.retryable
    assert processes_of(job.op_id) == []


async def test_a_fork_server_that_is_killed_takes_its_jobs_along_and_the_next_job_runs(bench):
    job, running = await slow_job_in_its_task(bench)
    os.kill(bench.server.pid, signal.SIGKILL)
    outcome = await running
    assert outcome.error.code == "JOB_CRASHED"
    assert await nothing_left(job.op_id)
    assert (await bench.run(bench.job())).error is None
    assert bench.server.restarts == 1


async def test_a_spare_process_that_is_killed_costs_nothing(bench):
    forks = psutil.Process(bench.server.pid)
    killed: set[int] = set()
    for _ in range(2):
        async with asyncio.timeout(10):
            # The one killed before may still be there for a moment.
            while not (fresh := [one for one in forks.children() if one.pid not in killed]):  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.02)
        (spare,) = fresh
        killed.add(spare.pid)
        spare.kill()
        spare.wait(10)  # a job given to it before it is gone would be its last
    assert (await bench.run(bench.job())).error is None


async def test_jobs_that_start_together_do_not_wait_for_a_spare_process(bench):
    outcomes = await asyncio.gather(*(bench.run(bench.job(request={"name": f"m-{n}"})) for n in range(3)))
    assert [outcome.error for outcome in outcomes] == [None] * 3


async def test_closing_the_fork_server_ends_what_runs_before_it_ends_itself(bench):
    job, running = await slow_job_in_its_task(bench)
    forks = psutil.Process(bench.server.pid)
    async with asyncio.timeout(10):
        while len(children := forks.children()) < 2:  # noqa: ASYNC110 - the job's process, and the next one forked ahead
            await asyncio.sleep(0.02)
    await bench.server.close()
    assert [one for one in children if one.is_running()] == []
    assert processes_of(job.op_id) == []
    assert (await running).error.code == "JOB_CRASHED"


async def test_what_an_old_attempt_sweeps_is_never_a_newer_attempt(bench):
    job, running = await slow_job_in_its_task(bench)
    old = f"{job.op_id}/an-attempt-before-{job.work_dir.name}"
    assert marks.marked(old) == []
    assert marks.marked(f"{job.op_id}/{job.work_dir.name}") == marks.marked(job.op_id) != []
    bench.cancelled.set()
    assert (await running).error.code == "JOB_CANCELLED"


async def test_a_playbook_killed_by_a_signal_is_a_crash_and_says_so(bench):
    _, running = await slow_job_in_its_task(bench)
    (leader,) = (one for one in psutil.Process(bench.server.pid).children() if one.children())
    leader.children()[0].kill()
    error = (await running).error
    assert error.code == "JOB_CRASHED"
    assert error.message == "ansible-playbook was killed by a signal during task 'Wait for a long time'"


async def test_a_line_of_two_megabytes_arrives_whole(bench):
    outcome = await bench.run(bench.job("LONG"))
    assert outcome.error is None
    line = next(line for line in bench.seen.log.splitlines() if "beginxxx" in line)
    assert line.count("x") >= 2_000_000
    assert "xxxend" in line


async def test_ten_jobs_at_once_all_end_well(bench):
    outcomes = await asyncio.gather(*(bench.run(bench.job(request={"name": f"m-{n}"})) for n in range(10)))
    assert [outcome.error for outcome in outcomes] == [None] * 10
    assert sorted(outcome.result["name"] for outcome in outcomes) == [f"m-{n}" for n in range(10)]


async def test_the_environment_of_a_job_holds_nothing_of_the_service(bench, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-in-the-environment")
    monkeypatch.setenv("ANSIBLE_STRATEGY", "free")
    job, running = await slow_job_in_its_task(bench)
    environments = [process.environ() for process in alive(job.op_id)]
    bench.cancelled.set()
    await running
    assert len(environments) >= 4
    for found in environments:
        assert "AWS_SECRET_ACCESS_KEY" not in found
        assert "ANSIBLE_STRATEGY" not in found


async def test_no_job_keeps_a_descriptor_of_the_service_or_the_fork_server(bench):
    job, running = await slow_job_in_its_task(bench)
    command = commands(job.op_id)[0]
    targets = {str(path.readlink()) for path in Path(f"/proc/{command.pid}/fd").iterdir()}  # noqa: ASYNC240 - procfs
    bench.cancelled.set()
    await running
    assert not [target for target in targets if target.startswith("socket:")]


# ---------------------------------------------------------------- hostile values (engines.md 4.1)

LOOKUP = "{{ lookup('pipe', 'touch CANARY') }}"
HOSTILE = {
    "a lookup": LOOKUP,
    "a lookup without spaces": "{{lookup('ansible.builtin.pipe','touch CANARY')}}",
    "a statement": "{% set x = lookup('pipe', 'touch CANARY') %}{{ x }}",
    "an unsafe spelling in JSON": '{"__ansible_unsafe": "' + LOOKUP + '"}',
    "a YAML tag": '!unsafe "' + LOOKUP + '"',
    "an end of the YAML string": '"\nansible_connection: "' + LOOKUP,
    "a YAML document": "x\n---\nsecbeat_site: {machines_dir: /}\n",
    "a nested list": '["' + LOOKUP + '"]',
    "a shell command": "$(touch CANARY)`touch CANARY`;touch CANARY",
    "an option": "--extra-vars=@/etc/passwd",
    "a path": "../../../../etc/passwd",
    "a bare conditional": "lookup('pipe', 'touch CANARY') == ''",
    "a NUL and control characters": "a\x01\x1b[31m\u2028\u0085b",
    "a lone surrogate's escape": "\\ud800 \U0001f600",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_value_reaches_the_playbook_as_data_and_runs_nothing(bench, payload):
    canary = bench.root / "pwned"
    value = payload.replace("CANARY", str(canary))
    (bench.root / "project/playbooks/scale_up.yml").write_text(
        """
- hosts: localhost
  gather_facts: false
  vars:
    copied: "{{ secbeat_request.hostile }}"
  tasks:
    - name: "A name with {{ secbeat_request.hostile }}"
      ansible.builtin.debug: { msg: "{{ copied }} {{ secbeat_request.hostile }}" }
    - name: Use it as an argument
      ansible.builtin.command: { argv: [printf, "%s", "{{ secbeat_request.hostile }}"] }
      register: printed
    - name: Use it in a condition and a fact
      ansible.builtin.set_fact: { kept: "{{ secbeat_request.hostile }}" }
    - name: Read it back
      ansible.builtin.debug: { msg: "{{ kept }} {{ printed.stdout }}" }
    - ansible.builtin.set_stats:
        per_host: false
        data: { secbeat_result: { same: "{{ secbeat_request.hostile }}", site: "{{ secbeat_site.machines_dir }}" } }
"""
    )
    outcome = await bench.run(bench.job(request={"hostile": value}))
    assert outcome.error is None, outcome.error
    assert outcome.result["same"] == value
    assert outcome.result["site"] == str(bench.root / "machines")
    assert not canary.exists()


async def test_a_bare_hostile_condition_fails_the_task_and_runs_nothing(bench):
    canary = bench.root / "pwned"
    (bench.root / "project/playbooks/scale_up.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - name: Decide\n      ansible.builtin.debug: {msg: x}\n      when: secbeat_request.hostile\n"
    )
    hostile = f"lookup('pipe', 'touch {canary}')"
    outcome = await bench.run(bench.job(request={"hostile": hostile}))
    assert outcome.error is not None
    assert not canary.exists()


async def test_the_operators_own_variables_keep_their_templates(bench):
    (bench.root / "project/playbooks/scale_up.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.set_stats:\n"
        '        per_host: false\n        data: {secbeat_result: "{{ image }}"}\n'
    )
    outcome = await bench.run(bench.job(variables={"image": "debian-{{ 6 * 2 }}"}))
    assert outcome.result == "debian-12"


@pytest.fixture(autouse=True)
def no_process_of_this_test_is_left():
    yield
    me = psutil.Process()
    for child in me.children(recursive=True):
        if "sleep" in child.name():
            pytest.fail(f"left behind: {child}")
