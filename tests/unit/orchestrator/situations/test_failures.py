"""Why a boot failed stands in the first line of every view, without anybody opening the log."""

from __future__ import annotations

import pytest

from secbeat import catalogue
from secbeat.wire.jobs import JobError

TASK = "Start the machine"
FAILURES = [
    JobError(code="PLAYBOOK_FAILED", message=f"task '{TASK}' failed on hv-7: no space left on device", task=TASK),
    JobError(code="PROVIDER_LIMIT", message=f"task '{TASK}' failed on localhost: quota exceeded for cores", task=TASK),
    JobError(code="HOST_UNREACHABLE", message=f"task '{TASK}' failed on hv-7: connection timed out", task=TASK),
    JobError(code="PLAYBOOK_INVALID", message="[ERROR]: couldn't resolve module 'cloud.vm' in site.yml line 12"),
    JobError(code="RESULT_MISSING", message="the playbook ended well and told no secbeat_result"),
    JobError(code="RESULT_INVALID", message="secbeat_result: address: 'n/a' is no address"),
    JobError(code="JOB_TIMEOUT", message="it did not end within 600 s, while it ran on hv-7", task=TASK),
    JobError(code="JOB_CRASHED", message="the process that runs playbooks was killed", task=TASK),
    JobError(code="JOB_POISON", message="3 attempts were begun and none came to an end"),
    JobError(code="JOB_DIR_UNWRITABLE", message="/var/lib/secbeat/jobs: Read-only file system"),
    JobError(code="JOIN_SECRET_UNAVAILABLE", message="the orchestrator at http://127.0.0.1:3030 does not answer"),
    JobError(code="MACHINE_NO_ADDRESS", message=f"task '{TASK}' failed on localhost: 8443 is taken", task=TASK),
]


def unattended(w):
    w.receiver.automatic = False


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: error.code)
async def test_the_first_line_has_code_sentence_task_and_host(serve, error):
    service = await serve(unattended, pool={"min": 1, "warmup_seconds": 0}, boot_retry_seconds=300)
    (op,) = service.world.core.operations()
    await service.world.receiver.finish(op.op_id, "failed", error=error)
    await service.world.clock.advance(15)
    assert error.code in catalogue.ALL
    for words in (("operations", "show", op.op_id[:20]), ("jobs", "show", op.op_id), ("why", "default")):
        ran = await service.secbeat(*words)
        assert ran.code == 0, ran.err
        assert f"{error.code}: {error.message}" in ran.first, words
        assert error.task is None or error.task in ran.first, words
    listed = await service.secbeat("operations")
    assert f"{error.code}: {error.message}" in listed.out


async def test_a_node_that_never_came_says_why(serve):
    service = await serve(unattended, pool={"min": 1, "warmup_seconds": 0}, boot_retry_seconds=300)
    (op,) = service.world.core.operations()
    await service.world.receiver.finish(op.op_id, "failed", error=FAILURES[0])
    await service.world.clock.advance(15)
    why = await service.why(op.node_id)
    assert f"{FAILURES[0].code}: {FAILURES[0].message}" in why.first
