"""Ten nodes of the target `local` at once against one: is any step of ours serial?

Starting a Python program and running Ansible are what costs, and both share the cores, so ten at once cannot take the
time of one. What can be said is how far each layer of ours is from the bare programs doing the same ten times at once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Row, median, report
from provisioner.local.addresses import candidates
from provisioner.local.directory import MachineDir
from provisioner.local.teardown import stop
from secbeat.up import Instance

_ROOT = Path(__file__).parents[1]
_MANY = 10
_ROUNDS = 5
_DEADLINE_SECONDS = 180.0
_CONFIG = """
[orchestrator]
heartbeat_interval_seconds = 1
[pools.default]
min = 0
max = 12
scaling_check_interval_seconds = 0.2
[provisioner]
max_machines = 20
[blueprints.default]
max_machines = 12
variables = {secbeat_node_propagation_seconds = 0}
"""
_NODE_TOML = """
[node]
listen_addr = "0.0.0.0:8443"
metrics_addr = "0.0.0.0:9090"
state_dir = "state"
[management]
listen_addr = "0.0.0.0:9999"
auth_token_file = "{token}"
"""


class Site:
    """A private state directory; whatever machine was made in it is gone at the end."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.machines = state / "machines"
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(state),
            "LANG": "C.UTF-8",
            "SECBEAT_STATE": str(state),
            "ANSIBLE_CONFIG": str(_ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(state / "ansible"),
        }

    def ansible(self, playbook: Path, *words: str) -> subprocess.Popen[bytes]:
        """Start a bare ansible-playbook."""
        command = ["ansible-playbook", str(playbook), "-i", str(_ROOT / "inventories" / "local"), *words]
        return self._run(command)

    def scale_up(self) -> subprocess.Popen[bytes]:
        """Start the real playbook for a new node."""
        return self.ansible(_ROOT / "playbooks" / "scale_up.yml", "-e", "pool=bench", "-e", f"node_id={uuid.uuid4()}")

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the launcher alone for a new node."""
        words = [f"--node-id={uuid.uuid4()}", "--pool=bench", f"--config={self.state / 'node.toml'}"]
        return self._run([sys.executable, "-m", "provisioner.local", "start", *words])

    def clear(self) -> None:
        """End the machines that there are."""
        for path in self.machines.glob("*-*"):
            stop(MachineDir(path), grace=0)

    def _run(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=self.state
        )


def at_once(count: int, begin: Callable[[], subprocess.Popen[bytes]]) -> float:
    """Seconds until so many of them, started together, have all succeeded."""
    start = time.perf_counter()
    running = [begin() for _ in range(count)]
    codes = [process.wait(_DEADLINE_SECONDS) for process in running]
    spent = time.perf_counter() - start
    assert not any(codes), f"exit codes {codes}"
    return spent


def nodes_at_once(count: int, state: Path) -> float:
    """Seconds until so many node programs, started directly and together, all listen: no lease, no launcher."""
    addresses = [address for _, address in zip(range(40 + count), candidates(), strict=False)][40:]
    running = []
    start = time.perf_counter()
    try:
        for address in addresses:
            directory = state / f"bare-{address}"
            directory.mkdir(exist_ok=True)
            config = directory / "node.toml"
            config.write_text((state / "node.toml").read_text().replace("0.0.0.0", address))  # noqa: S104 - replaced
            command = [sys.executable, "-P", "-m", "secbeat", "node", "--config", str(config)]
            running.append(
                subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        for address in addresses:
            for port in (8443, 9999):
                _until_listening(address, port, start + _DEADLINE_SECONDS)
        return time.perf_counter() - start
    finally:
        for process in running:
            process.kill()
            process.wait()


def _until_listening(address: str, port: int, deadline: float) -> None:
    while time.perf_counter() < deadline:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(f"{address}:{port} never listened")


@contextmanager
def site() -> Iterator[Site]:
    """A private site."""
    state = Path(tempfile.mkdtemp(prefix="secbeat-bench-"))
    found = Site(state)
    (state / "secrets").mkdir(mode=0o700)
    (state / "node.toml").write_text(_NODE_TOML.format(token=state / "secrets" / "management.token"))
    (state / "trivial.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.command: {argv: ['true']}\n      changed_when: false\n"
    )
    try:
        yield found
    finally:
        found.clear()
        shutil.rmtree(state)


def _median_of(rounds: int, measure: Callable[[], float], after: Callable[[], None]) -> float:
    found = []
    for _ in range(rounds):
        found.append(measure())
        after()
    return median(found)


async def _scaled(directory: Path, size: int) -> float:
    """Seconds from a manual scale-up from 0 until so many nodes are active: the whole loop."""
    async with Instance(directory, config_text=_CONFIG, free_ports=True) as instance:
        start = time.perf_counter()
        await instance.api.post("/api/v1/pools/default/scale", {"size": size})
        while True:
            nodes = await instance.api.items("/api/v1/nodes")
            if sum(node["state"] == "active" for node in nodes) >= size:
                return time.perf_counter() - start
            assert time.perf_counter() - start < _DEADLINE_SECONDS, nodes
            await asyncio.sleep(0.02)


def main() -> int:
    """Measure."""
    with site() as one:
        one.scale_up().wait()  # Ansible fills its caches, Python its byte code
        one.clear()
        trivial = one.state / "trivial.yml"
        bare = _median_of(_ROUNDS, lambda: at_once(1, lambda: one.ansible(trivial)), one.clear)
        play = _median_of(_ROUNDS, lambda: at_once(1, one.scale_up), one.clear)
        plays = _median_of(2, lambda: at_once(_MANY, one.scale_up), one.clear)
        single = _median_of(_ROUNDS, lambda: nodes_at_once(1, one.state), one.clear)
        many = _median_of(2, lambda: nodes_at_once(_MANY, one.state), one.clear)
        launch = _median_of(_ROUNDS, lambda: at_once(1, one.launch), one.clear)
        launches = _median_of(2, lambda: at_once(_MANY, one.launch), one.clear)
        scaled = asyncio.run(_scaled(one.state / "instance-1", 1))
        scaled_many = asyncio.run(_scaled(one.state / "instance-10", _MANY))
    rows = [
        Row("1 node, ansible-playbook scale_up.yml, against one trivial command task", play, "s", bare, better="lower"),
        Row("1 node, launcher, against the node program alone", launch, "s", single, better="lower"),
        Row("1 node, pool scaled by hand until active, against bare ansible-playbook", scaled, "s", play,
            better="lower"),
        Row("10 nodes at once, ansible-playbook each, against 1", plays, "s", play, better="lower"),
        Row("10 nodes at once, launcher each, against 10 node programs alone", launches, "s", many, better="lower"),
        Row("10 nodes at once, pool scaled by hand, against 10 bare ansible-playbook", scaled_many, "s", plays,
            better="lower"),
    ]  # fmt: skip
    return report("local", rows)


if __name__ == "__main__":
    sys.exit(main())
