from __future__ import annotations

import json
import os
import signal
import socket
import stat
import time
from pathlib import Path

import psutil
import pytest

from provisioner.local import list_machines
from provisioner.local.directory import MachineDir
from provisioner.local.launch import start
from provisioner.local.processes import send, wait_for_end
from provisioner.local.teardown import stop
from secbeat.errors import SecbeatError


def begin(site, tags, mode="serve", **options):
    return start(site.directory(tags), tags, config=site.config, command=site.dummy(mode), **options)


def end_process(directory):
    process = directory.process()
    send(process, signal.SIGKILL)
    assert wait_for_end(process, 10.0)


def test_a_started_machine_listens_on_an_address_of_its_own(site):
    tags = site.tags()
    started = begin(site, tags)
    assert started.address.startswith("127.0.")
    assert (started.id, started.name, started.changed) == (tags.node_id, tags.name, True)
    for port in (started.proxy_port, started.management_port):
        socket.create_connection((started.address, port), timeout=5).close()


def test_its_directory_says_who_it_is_and_is_private(site):
    tags = site.tags()
    started = begin(site, tags)
    path = site.made[0].path
    assert json.loads((path / "machine.json").read_text()) == {
        "v": 1,
        "cluster_id": tags.cluster_id,
        "pool": "default",
        "node_id": tags.node_id,
        "op_id": tags.op_id,
        "name": tags.name,
        "address": started.address,
        "ports": {"proxy": site.ports[0], "metrics": site.ports[1], "management": site.ports[2]},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "node.toml").stat().st_mode) == 0o600
    assert f'listen_addr = "{started.address}:{site.ports[0]}"' in (path / "node.toml").read_text()


def test_a_second_start_reports_the_same_machine(site):
    tags = site.tags()
    first, pid = begin(site, tags), site.made[0].process()
    second = begin(site, tags)
    assert (second.address, second.changed) == (first.address, False)
    assert site.made[0].process() == pid


def test_a_machine_whose_process_died_is_started_again(site):
    tags = site.tags()
    begin(site, tags)
    end_process(site.made[0])
    assert begin(site, tags).changed


def test_the_end_of_the_process_frees_the_address(site):
    first, second = site.tags(), site.tags()
    address = begin(site, first).address
    assert begin(site, second).address != address
    end_process(site.made[0])
    lease = socket.socket(socket.AF_UNIX)
    lease.bind(f"\0secbeat-machine-{address}")
    lease.close()


def test_a_machine_gets_neither_our_environment_nor_our_files(site, monkeypatch):
    monkeypatch.setenv("SECBEAT_NODE__BACKEND", "http://elsewhere")
    monkeypatch.setenv("ANSIBLE_CONFIG", "/x")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    begin(site, site.tags())
    os.close(reader)
    os.close(writer)
    seen = json.loads((site.made[0].path / "seen.json").read_text())
    assert not [name for name in seen["env"] if name.startswith(("SECBEAT", "ANSIBLE"))]
    assert len(seen["fds"]) == 5  # standard streams, the lease, the listing itself


def test_a_machine_is_in_a_session_of_its_own(site):
    begin(site, site.tags())
    pid = site.made[0].process().pid
    assert os.getsid(pid) == pid


def test_a_node_that_dies_fails_the_start_with_its_last_words(site):
    with pytest.raises(SecbeatError) as caught:
        begin(site, site.tags(), "die")
    assert caught.value.code == "MACHINE_DIED"
    assert "the disk is on fire" in caught.value.why


def test_a_node_that_never_listens_is_ended_and_said_so(site):
    with pytest.raises(SecbeatError) as caught:
        begin(site, site.tags(), "deaf", timeout=0.3)
    assert caught.value.code == "MACHINE_NOT_LISTENING"
    assert site.made[0].process() is None


def test_a_file_in_place_of_the_directory_is_named(site):
    tags = site.tags()
    site.root.mkdir()
    (site.root / tags.name).write_text("")
    with pytest.raises(SecbeatError) as caught:
        begin(site, tags)
    assert caught.value.code == "MACHINE_DIRECTORY"
    assert tags.name in caught.value.why


def test_a_symbolic_link_in_place_of_the_directory_is_refused(site, tmp_path):
    tags = site.tags()
    site.root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (site.root / tags.name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecbeatError) as caught:
        begin(site, tags)
    assert caught.value.code == "MACHINE_DIRECTORY"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(site):
    site.root.parent.joinpath("machines").write_text("a file where the machines should be")
    with pytest.raises(SecbeatError) as caught:
        begin(site, site.tags())
    assert caught.value.code == "MACHINE_DIRECTORY"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_named(site):
    site.root.mkdir(mode=0o500)
    with pytest.raises(SecbeatError) as caught:
        begin(site, site.tags())
    assert "Permission denied" in caught.value.why


def test_a_directory_of_another_name_is_refused(site):
    other = site.directory(site.tags())
    with pytest.raises(SecbeatError) as caught:
        start(other, site.tags(), config=site.config, command=site.dummy())
    assert caught.value.code == "MACHINE_INVALID"


def test_stop_ends_the_process_and_removes_the_directory(site):
    begin(site, site.tags())
    process = site.made[0].process()
    stopped = stop(site.made[0])
    assert (stopped.gone, stopped.forced, stopped.changed) == (True, False, True)
    assert not process.running
    assert not site.made[0].path.exists()


def test_a_second_stop_finds_nothing_to_do(site):
    begin(site, site.tags())
    stop(site.made[0])
    assert stop(site.made[0]).changed is False


def test_a_file_where_all_machines_should_be_means_that_this_one_is_gone(site):
    tags = site.tags()
    site.root.parent.mkdir(parents=True, exist_ok=True)
    site.root.write_text("")
    assert stop(MachineDir(site.root / tags.name)).gone


def test_stop_refuses_a_file_in_the_machines_own_place(site):
    directory = MachineDir(site.root / site.tags().name)
    site.root.mkdir(parents=True, exist_ok=True)
    directory.path.write_text("")
    with pytest.raises(SecbeatError) as caught:
        stop(directory)
    assert caught.value.code == "MACHINE_DIRECTORY"


def test_stop_removes_the_directory_of_a_machine_that_is_gone_already(site):
    begin(site, site.tags())
    end_process(site.made[0])
    assert stop(site.made[0]).changed
    assert not site.made[0].path.exists()


def test_a_node_that_ignores_the_request_is_killed(site):
    begin(site, site.tags(), "stubborn")
    assert stop(site.made[0], grace=0.1).forced


def test_stop_never_touches_a_process_that_has_taken_over_the_pid(site):
    begin(site, site.tags())
    directory = site.made[0]
    process = directory.process()
    body = json.loads(directory.pid_file.read_text())
    directory.pid_file.write_text(json.dumps(body | {"ticks": body["ticks"] - 1}))
    stop(directory)
    try:
        assert process.running
    finally:
        send(process, signal.SIGKILL)


def test_stop_refuses_a_directory_that_is_no_machines(site, tmp_path):
    stranger = tmp_path / "photos-12345678"
    stranger.mkdir()
    (stranger / "cat.jpg").write_text("")
    with pytest.raises(SecbeatError):
        stop(MachineDir(stranger))
    assert (stranger / "cat.jpg").exists()


@pytest.mark.parametrize(
    "path", ["/", "/etc", "relative/default-12345678", "/x/../default-12345678", "/x/Default-12345678"]
)
def test_a_path_that_is_no_machines_is_refused(path):
    with pytest.raises(SecbeatError) as caught:
        MachineDir(Path(path))
    assert caught.value.code == "MACHINE_INVALID"


def test_machines_are_listed_with_their_tags_and_whether_they_run(site):
    alive, dead = site.tags("web"), site.tags("web")
    begin(site, alive)
    begin(site, dead)
    end_process(site.made[1])
    (site.root / "notes.txt").write_text("not a machine")
    found = {machine.node_id: machine for machine in list_machines(site.root)}
    assert {key: machine.running for key, machine in found.items()} == {alive.node_id: True, dead.node_id: False}
    machine = found[alive.node_id]
    assert (machine.pool, machine.op_id, machine.cluster_id) == ("web", alive.op_id, alive.cluster_id)
    assert machine.name == alive.name


def test_a_machine_that_has_only_its_join_file_is_listed_as_not_running(site):
    tags = site.tags()
    site.directory(tags).make()
    (site.made[0].path / "join.json").write_text(json.dumps({"node_id": tags.node_id, "pool": "default"}))
    assert [machine.running for machine in list_machines(site.root)] == [False]


def test_no_directory_means_no_machines(tmp_path):
    assert list_machines(tmp_path / "absent") == []


def test_a_machine_that_cannot_be_read_makes_the_list_an_error(site):
    begin(site, site.tags())
    (site.made[0].path / "machine.json").write_text("{")
    with pytest.raises(OSError, match=r"machine\.json"):
        list_machines(site.root)


def test_concurrent_starts_get_different_addresses(site):
    commands = [site.command("start", site.tags()) for _ in range(12)]
    results = [command.communicate(timeout=60) for command in commands]
    assert [command.returncode for command in commands] == [0] * 12, results
    assert len({json.loads(out)["address"] for out, _ in results}) == 12


def test_concurrent_starts_of_one_machine_start_one_process(site):
    tags = site.tags()
    commands = [site.command("start", tags) for _ in range(5)]
    results = [json.loads(command.communicate(timeout=60)[0]) for command in commands]
    assert len({result["address"] for result in results}) == 1
    assert sorted(result["changed"] for result in results) == [False] * 4 + [True]


def test_the_machine_outlives_its_start_and_belongs_to_nobody(site):
    command = site.command("start", site.tags())
    command.communicate(timeout=60)
    process = psutil.Process(site.made[0].process().pid)
    assert process.ppid() not in (command.pid, os.getpid())


def test_a_cancelled_start_leaves_no_process(site):
    command = site.command("start", site.tags(), mode="deaf")
    deadline = time.monotonic() + 30
    while site.made[0].process() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process = site.made[0].process()
    command.terminate()
    command.communicate(timeout=30)
    assert wait_for_end(process, 10.0)


def test_stop_ends_a_start_that_is_under_way(site):
    command = site.command("start", site.tags(), mode="deaf")
    deadline = time.monotonic() + 30
    while site.made[0].process() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    stop(site.made[0], grace=0)
    _, error = command.communicate(timeout=30)
    assert command.returncode == 1
    assert "MACHINE_DIED" in error
    assert not site.made[0].path.exists()


def test_the_command_explains_a_failure_and_exits_with_1(site):
    tags = site.tags()
    command = site.command("start", tags, mode="die")
    out, error = command.communicate(timeout=60)
    assert (command.returncode, out) == (1, "")
    assert "error[MACHINE_DIED]" in error
    assert "the disk is on fire" in error


def test_the_command_writes_its_result_where_it_is_told_to(site, tmp_path):
    command = site.command("start", site.tags(), f"--result={tmp_path / 'result.json'}")
    out, _ = command.communicate(timeout=60)
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(out)


@pytest.mark.parametrize(
    ("node_id", "pool"),
    [("--help", "default"), ("../../etc", "default"), ("{{ 1 }}", "default"), (None, "$(id)"), (None, "a/b")],
)
def test_hostile_names_are_refused_as_data(site, node_id, pool):
    tags = site.tags()
    words = [f"--node-id={node_id or tags.node_id}", f"--pool={pool}"]
    command = site.command("start", tags, *words)
    _, error = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "error[MACHINE_INVALID]" in error
    assert not site.root.exists()


def test_a_node_without_join_file_gets_one_token_however_many_start(site):
    token = site.root.parent / "secrets" / "management.token"
    text = site.config.replace('join_file = "join.json"\n', "").replace(
        "[management]\n", f'[management]\nauth_token_file = "{token}"\n'
    )
    first, second = site.tags(), site.tags()
    start(site.directory(first), first, config=text, command=site.dummy())
    before = token.read_text()
    start(site.directory(second), second, config=text, command=site.dummy())
    assert len(before.strip()) >= 40
    assert token.read_text() == before
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert [path.name for path in token.parent.iterdir()] == ["management.token"]
