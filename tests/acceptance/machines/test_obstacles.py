"""A node directory that cannot be written: said with its reason, tried again, and over when the obstacle is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.crashes.fleet import CONFIG, eventually

pytestmark = pytest.mark.timeout(150)

# Both sides have a breaker; one that opens for ten minutes would outlast this test.
QUICK = CONFIG.replace("breaker_reset_seconds = 30", "breaker_reset_seconds = 3").replace(
    "[provisioner]", "[provisioner]\nbreaker_reset_seconds = 3"
)
FAILURES = 3


@contextmanager
def a_file_in_its_place(machines: Path, _monkeypatch) -> Iterator[None]:
    machines.parent.mkdir(mode=0o700)
    machines.write_text("not a directory")
    try:
        yield
    finally:
        machines.unlink()


@contextmanager
def a_read_only_mount(machines: Path, monkeypatch) -> Iterator[None]:
    """In a mount namespace that the services are started in; nobody else sees it, and it ends with its holder."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    machines.mkdir(mode=0o700, parents=True)
    script = 'mount -t tmpfs -o ro none "$0" && echo mounted && exec sleep 600'
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, machines], stdout=subprocess.PIPE
    )
    enter = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]
    python = machines.parent.parent / "python"
    python.write_text(f'#!/bin/sh\nexec {" ".join(enter)} {sys.executable} "$@"\n')
    python.chmod(0o700)
    try:
        assert holder.stdout.readline() == b"mounted\n"
        monkeypatch.setattr(sys, "executable", str(python))
        yield
        subprocess.run([*enter, "umount", "--lazy", machines], check=True)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [(a_file_in_its_place, "Not a directory"), (a_read_only_mount, "Read-only file system")],
)
async def test_scale_ups_fail_with_their_reason_until_the_breaker_opens_and_go_on_when_it_is_gone(
    make_fleet, monkeypatch, obstacle, words
):
    fleet = make_fleet(config=QUICK)
    api, machines = fleet.instance, fleet.state / "machines"
    with obstacle(machines, monkeypatch):
        await fleet.start()

        async def stopped():
            why = await api.api.get("/api/v1/pools/default/why")
            return why if why["decision"] and why["decision"]["code"] == "BREAKER_OPEN" else None

        why = await eventually(stopped, "a pool that says why it creates nothing")
        assert f"{FAILURES} boots in a row never joined" in why["sentence"]
        assert words in why["sentence"]
        assert why["fix"]
        creates = (await fleet.operations("create"))[:FAILURES]
        assert len({op["node_id"] for op in creates}) == FAILURES, "each retry is a new node"
        for op in creates:
            assert (op["state"], op["error"]["code"]) == ("failed", "MACHINE_DIR_UNWRITABLE")
            assert str(machines) in op["error"]["message"]
            assert words in op["error"]["message"]
            job = await api.api.get(f"/api/v1/jobs/{op['op_id']}")
            assert (job["state"], job["error"]["code"]) == ("failed", "MACHINE_DIR_UNWRITABLE")
            assert words in (fleet.state / "jobs" / op["op_id"] / "log").read_text()
        pool = await api.api.get("/api/v1/pools/default")
        assert pool["breaker"]["failures"] >= FAILURES
        assert words in pool["breaker"]["last_error"]
        assert fleet.running() == []
    (node,) = await fleet.fleet_of(1)
    assert node["name"] in fleet.names
    assert len(fleet.names) == 1
    assert len(fleet.running()) == len(fleet.machines) == 1
    assert (await api.api.get("/api/v1/pools/default"))["breaker"]["open_since"] is None
    await fleet.end()
