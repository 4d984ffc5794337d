"""A real orchestrator, a real provisioner and a real node on one nats-server, with something in every list."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from secbeat import ids, signing
from secbeat.auth import TokenBook, write_secret
from secbeat.bus.program import find_binary

ROOT = Path(__file__).parents[3]
CREATE = """
- name: Create
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Report the machine
      ansible.builtin.set_stats:
        per_host: false
        data:
          secbeat_result:
            id: "machine-{{ secbeat_request.node_id }}"
            name: "{{ secbeat_request.name }}"
            address: 127.0.9.9
            management_port: 9999
"""
DESTROY = """
- name: Destroy
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Report the end
      ansible.builtin.set_stats:
        per_host: false
        data: {secbeat_result: {id: "machine-{{ secbeat_request.node_id }}", gone: true}}
"""


NODE_TOKEN = "management-token-of-this-test"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(check: Callable[[], Any], what: str, *, seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(requests.RequestException, FileNotFoundError):
            if found := check():
                return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


class Site:
    """The processes, and how to call them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.nats = ""
        self.node: dict[str, int] = {}
        self.tokens: dict[str, str] = {}
        self.orchestrator = self.provisioner = ""
        self.secret = signing.new_secret()
        self.session = requests.Session()
        self.session.trust_env = False

    def run(self, name: str, *command: str, **environment: str) -> Path:
        output = self.directory / f"{name}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )  # fmt: skip
        self.processes[name] = process
        return output

    def start(self) -> None:
        nats = self.nats = self._nats()
        secret, state = self.secret, self.directory / "state"
        for name in ("o", "p"):
            write_secret(state / name / "secrets" / "webhook.secret", secret)
        self.tokens = {
            scope: TokenBook.issue(state / "o" / "secrets" / "tokens.json", name=f"the-{scope}", scope=scope)
            for scope in ("read", "operate", "admin", "service")
        }
        (state / "p" / "secrets" / "tokens.json").write_text((state / "o" / "secrets" / "tokens.json").read_text())
        write_secret(state / "p" / "secrets" / "service.token", self.tokens["service"])
        self._project(state / "project")
        self._provisioner(nats, state)
        self._orchestrator(nats, state)

    def _nats(self) -> str:
        self.run("nats", str(find_binary()), "-js", "-sd", str(self.directory / "js"), "-a", "127.0.0.1", "-p", "-1",
                 "--ports_file_dir", str(self.directory))  # fmt: skip

        def address() -> str:
            found = next(iter(self.directory.glob("*.ports")), None)
            return json.loads(found.read_text())["nats"][0] if found else ""

        return until(address, "nats-server")

    @staticmethod
    def _project(project: Path) -> None:
        (project / "playbooks").mkdir(parents=True)
        (project / "inventories" / "local").mkdir(parents=True)
        (project / "inventories" / "local" / "hosts.yml").write_text(
            "all: {hosts: {localhost: {ansible_connection: local}}}\n"
        )
        (project / "playbooks" / "scale_up.yml").write_text(CREATE)
        (project / "playbooks" / "scale_down.yml").write_text(DESTROY)

    def _provisioner(self, nats: str, state: Path) -> None:
        config = state / "p.toml"
        config.write_text(
            f"""
[provisioner]
listen_addr = "127.0.0.1:0"
state_dir = "{state}/p"
project_dir = "{state}/project"
orchestrator_url = "http://127.0.0.1:1"
[nats]
url = "{nats}"
[blueprints.default]
"""
        )
        log = self.run("provisioner", sys.executable, "-m", "provisioner", "--config", str(config))
        self.provisioner = self._listening(log)
        until(lambda: self.session.get(f"{self.provisioner}/readyz").status_code == 200, "a ready provisioner")

    def _orchestrator(self, nats: str, state: Path) -> None:
        config = state / "o.toml"
        config.write_text(
            f"""
[orchestrator]
listen_addr = "127.0.0.1:0"
metrics_addr = "127.0.0.1:0"
state_dir = "{state}/o"
provisioning_webhook_url = "{self.provisioner}/provision"
deprovisioning_webhook_url = "{self.provisioner}/deprovision"
heartbeat_interval_seconds = 1
[pools.default]
min = 1
max = 6
scaling_check_interval_seconds = 0.5
[nats]
url = "{nats}"
"""
        )
        log = self.run("orchestrator", sys.executable, "-m", "orchestrator", "--config", str(config))
        self.orchestrator = self._listening(log)
        until(lambda: self.session.get(f"{self.orchestrator}/readyz").status_code == 200, "a leading orchestrator")

    def start_node(self) -> None:
        """A node in the original's form, with its three ports."""
        self.node = {name: free_port() for name in ("proxy", "management", "metrics")}
        config = self.directory / "node.toml"
        config.write_text(
            f"""
[node]
server_url = "{self.orchestrator}"
state_dir = "{self.directory}/node"
listen_addr = "127.0.0.1:{self.node["proxy"]}"
metrics_addr = "127.0.0.1:{self.node["metrics"]}"
register_jitter_seconds = 0
[management]
listen_addr = "127.0.0.1:{self.node["management"]}"
auth_token = "{NODE_TOKEN}"
[nats]
url = "{self.nats}"
"""
        )
        self.run("node", sys.executable, "-m", "node", "--config", str(config))
        headers = {"Authorization": f"Bearer {NODE_TOKEN}"}
        url = f"http://127.0.0.1:{self.node['management']}/health"
        until(lambda: self.session.get(url, headers=headers, timeout=5).status_code == 200, "a node")

    @property
    def management(self) -> str:
        """The address of the node's management API."""
        return f"http://127.0.0.1:{self.node.get('management', 0)}"

    @staticmethod
    def _listening(log: Path) -> str:
        def address() -> str:
            text = log.read_text()
            assert "Traceback" not in text, text
            return text.partition("Listening at ")[2].split(" ")[0].strip(",\n") if "Listening at " in text else ""

        return until(address, "an address in the log")

    def get(self, path: str, *, scope: str = "admin", base: str | None = None, **headers: str) -> requests.Response:
        headers["Authorization"] = f"Bearer {self.tokens[scope]}"
        return self.session.get((base or self.orchestrator) + path, headers=headers, timeout=30)

    def post(self, path: str, body: Any = None, *, scope: str = "admin") -> requests.Response:
        headers = {"Authorization": f"Bearer {self.tokens[scope]}"}
        return self.session.post(self.orchestrator + path, json=body, headers=headers, timeout=30)

    def sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """As ``auth`` of a call: the webhook's signature."""
        raw = request.body or b""
        body = raw.encode() if isinstance(raw, str) else raw
        now = int(time.time())
        request.headers.update(signing.headers(self.secret, msg_id=ids.new_op_id(), timestamp=now, body=body))
        return request

    def fill(self) -> None:
        """Something in every list: nodes, an operation and its job, decisions, audit events, a rule."""
        for number in range(3):
            body = {"public_ip": f"127.0.0.{number + 2}",
                    "config": {"node_type": "mitigation-node", "region": None, "tags": []}}  # fmt: skip
            assert self.post("/api/v1/nodes/register", body).status_code == 200
        assert self.post("/api/v1/rules/block_ip", {"ip": "203.0.113.7", "reason": "test"}).json()["success"]
        assert self.post("/api/v1/pools/default/nodes", {}).status_code == 201
        assert self.post("/api/v1/pools/default/scale", {"size": 5}).status_code == 200
        until(lambda: self.get("/api/v1/jobs").json()["items"], "a job")
        until(lambda: self.get("/api/v1/decisions").json()["items"], "a decision")

    def stop(self) -> None:
        self.session.close()
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
