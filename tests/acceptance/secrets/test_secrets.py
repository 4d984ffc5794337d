"""No secret in a log, an event, an artifact, a record, an answer or a process list, and private files are private."""

from __future__ import annotations

import asyncio
import base64

import pytest
import yaml

from tests.acceptance.secrets.watching import Watch

CANARY = "canary-9dd1c27e5b7746d18a5f"


def tell_it(playbook):
    """What a careless play does: it prints a password, plain and encoded, and hands it to a command."""
    (play,) = yaml.safe_load(playbook.read_text())
    play["tasks"] += [
        {"name": "Tell", "ansible.builtin.debug": {"msg": "logs in with {{ backend_password }}"}},
        {"name": "Tell it encoded", "ansible.builtin.debug": {"msg": "Basic {{ backend_password | b64encode }}"}},
        {"name": "Echo", "ansible.builtin.command": {"argv": ["cat"], "stdin": "{{ backend_password }}"}},
    ]
    playbook.write_text(yaml.safe_dump([play], sort_keys=False))


@pytest.mark.timeout(150)
async def test_no_secret_is_seen_anywhere_while_a_fleet_lives_its_life(make_fleet):
    fleet = make_fleet(backend_password=CANARY)
    tell_it(fleet.state.parent / "project" / "playbooks" / "scale_up.yml")
    watch = Watch(fleet)
    watching = asyncio.create_task(watch.run())
    api = fleet.instance
    try:
        await fleet.start()
        await fleet.fleet_of(1)
        await api.api.post("/api/v1/pools/default/scale", {"size": 2})
        first, _ = await fleet.fleet_of(2)
        drain = await api.api.post(f"/api/v1/nodes/{first['node_id']}/drain")
        await fleet.reaches(f"/api/v1/operations/{drain['op_id']}", "succeeded")
        await fleet.fleet_of(2)
        await watch.ask()
        await api.api.post("/api/v1/pools/default/scale", {"size": 1})
        await fleet.fleet_of(1)
        await watch.ask()
        jobs = list(await fleet.stored("jobs", "job."))
        open_modes = watch.open_modes()
        assert list((fleet.state / "jobs").glob("*/work-*")) == [], "private directories of jobs"
        await fleet.end()
        assert not watching.done(), "it was watched to the end"
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    # What was looked at is what it was about.
    assert len(watch.join_secrets) == 3, "one for each node"
    assert len(watch.node_secrets) >= 9, "a management token, a NATS login, a seed and a key for each node"
    assert len(jobs) == 5
    for op_id in jobs:
        assert op_id.encode() in watch.texts["events"]
        assert watch.texts[f"jobs/{op_id}/log"]
        assert watch.texts[f"jobs/{op_id}/events.jsonl"]
    creates = [text for where, text in watch.texts.items() if where.endswith("/log") and b"logs in with" in text]
    assert len(creates) >= 3, "the careless task ran"
    assert any(b"SECBEAT_ORCHESTRATOR__" in text for text in watch.processes.values())
    assert any(b"node.toml" in text for text in watch.processes.values())

    secrets = watch.secrets(CANARY)
    assert {api_token.read_text().strip() for api_token in (fleet.state / "secrets").glob("*.token")} <= secrets
    assert watch.leaks(secrets) == []
    assert open_modes == []


async def test_the_search_finds_what_it_looks_for(make_fleet):
    fleet = make_fleet()
    watch = Watch(fleet)
    await fleet.start()
    token = fleet.instance.tokens["read"]
    logs = fleet.state / "logs"
    assert watch.leaks({token}) == []
    for text in (token, base64.b64encode(token.encode()).decode(), token.encode().hex()):
        (logs / "planted").write_text(f"x{text}x")
        assert [leak.split(":")[0] for leak in watch.leaks({token})] == ["logs/planted"]
    (logs / "planted").unlink()
    (fleet.state / "secrets" / "read.token").chmod(0o640)
    (fleet.state / "secrets").chmod(0o750)
    assert sorted(watch.open_modes()) == ["secrets/read.token: 0640", "secrets: 0750"]
