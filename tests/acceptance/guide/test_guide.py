"""The guide, followed to the letter: its commands, its ports, its files, its own receiver of webhooks."""

from __future__ import annotations

import json
import re

import pytest

from tests.acceptance.guide.conftest import TOKEN, blocks, commands
from tests.acceptance.support import until

pytestmark = [pytest.mark.slow, pytest.mark.needs_curl]

ORIGINAL_STATS = {
    "total_nodes", "active_nodes", "dead_nodes", "avg_cpu_usage", "avg_memory_usage", "total_pps", "total_connections",
}  # fmt: skip
ORIGINAL_WEBHOOK = {"reason", "timestamp", "fleet_metrics"}
ORIGINAL_METRICS = {"active_nodes", "avg_cpu_usage", "avg_memory_usage", "total_connections"}
LITERAL_TOKEN = "secure-management-token-change-in-production"

FAST = """
heartbeat_interval_seconds = 1
warmup_seconds = 0
scale_down_cooldown_seconds = 0
"""
# So little counts as full load that the guide's hundred requests are high load on any machine.
BUSY = 'cpu_allowance = 0.04\npropagation_seconds = 0.3\nlisten_addr = "127.0.0.1:8443"'


def real(command):
    """The guide's command with the token of this installation."""
    return command.replace(LITERAL_TOKEN, TOKEN)


def status_of(answer):
    """What curl printed, and the status that it was told to print after it."""
    body, _, status = answer.strip().rpartition("\n")
    return body.strip(), status


def states(guide, action="create"):
    return [op["state"] for op in guide.operations(action)]


def test_every_command_of_the_guide_works_as_typed(guide):
    guide.configure(
        orchestrator=f"{FAST}boot_deadline_seconds = 6\nbreaker_failures = 100",
        node="propagation_seconds = 0.3\ncpu_allowance = 64",  # whatever else this machine does is no load
        scaling_check_interval_seconds=1,
    )
    services = guide.start_all()
    until(lambda: guide.stats()["active_nodes"] == 1, 30, "the node is active", diagnosis=guide.said)

    # 1. Test Resource Manager; the same two commands again under Troubleshooting.
    stats = guide.stats()
    assert set(stats) == ORIGINAL_STATS | {"scaling"}
    assert stats["total_nodes"] == 1
    pool = stats["scaling"]["pools"]["default"]
    assert (pool["min"], pool["policy"]["scale_up_cpu_threshold"], pool["policy"]["scale_down_cpu_threshold"]) == (
        1, 0.80, 0.30,
    )  # fmt: skip
    (_, tail), (again, troubled) = commands("### 1. Test Resource Manager"), commands("### Resource Manager Issues")
    assert "scaling decision" in guide.follow(tail, "ResourceManager", "scaling decision")
    assert "scaling decision" in guide.follow(troubled, "scaling decision")
    assert status_of(guide.typed(again))[1] == "[200]"
    nodes = guide.get("/api/v1/nodes")
    assert [node["status"] for node in nodes] == ["Active"]

    # 2. Test Scale-Up Simulation.
    (requests,) = commands("### 2. Test Scale-Up Simulation")
    answers = guide.typed(requests, seconds=90)
    assert answers.count("[200]") == 100
    assert answers.count('"path": "/api/test"') == 100
    assert re.findall(r"\[\d+\]", answers) == ["[200]"] * 100
    log = (guide.cwd / "logs" / "orchestrator.log").read_text()
    assert re.search(r"ResourceManager scaling webhook http://localhost:8000/provision, attempt \d+: WEBHOOK_UNR", log)

    # 3. Test Node Termination.
    without, with_token = commands("### 3. Test Node Termination")
    assert status_of(guide.typed(without))[1] == "[401]"
    assert services["node"].running
    body, status = status_of(guide.typed(real(with_token)))
    assert status == "[202]"
    (example,) = blocks("#### Response", "json")
    assert body == json.dumps(json.loads(example), separators=(",", ":")).replace("60", "30")
    assert services["node"].ended(30) == 0
    until(lambda: guide.stats()["active_nodes"] == 0, 10, "the node has left", diagnosis=guide.said)

    # 4. Test Webhook Receiver: the fleet is below its minimum, so it is called.
    receiver = guide.receiver()
    (first, *_) = until(lambda: guide.webhooks(receiver), 30, "a webhook", diagnosis=guide.said)
    assert set(first) == ORIGINAL_WEBHOOK | {"operation"}
    assert set(first["fleet_metrics"]) == ORIGINAL_METRICS
    assert first["reason"] == "BELOW_MIN_FLEET_SIZE"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", first["timestamp"])
    assert "status" not in first["operation"]

    # Its bare 200 means accepted, untracked: never sent again, over at the deadline, and then a new one.
    asked = first["operation"]["op_id"]
    until(
        lambda: any(op["op_id"] == asked and op["state"] == "failed" for op in guide.operations("create")),
        30, "the operation ends by its deadline", diagnosis=guide.said,
    )  # fmt: skip
    (ended,) = (op for op in guide.operations("create") if op["op_id"] == asked)
    assert (ended["tracked"], ended["error"]["code"]) == (False, "BOOT_DEADLINE")
    until(lambda: len(guide.webhooks(receiver)) >= 2, 30, "another webhook", diagnosis=guide.said)
    sent = [webhook["operation"]["op_id"] for webhook in guide.webhooks(receiver)]
    assert len(set(sent)) == len(sent)
    for name in ("orchestrator", "origin", "nats"):
        services[name].interrupt()
        assert services[name].ended(20) == 0, services[name].said()


def test_the_guides_loop_with_its_own_receiver_and_nodes_started_by_hand(guide):
    guide.configure(
        orchestrator=f"{FAST}boot_deadline_seconds = 300",
        node=BUSY,
        scaling_check_interval_seconds=1,
        scale_down_cpu_threshold=0.6,
    )
    services = guide.start_all(receiver=True)
    receiver, node = services["receiver"], services["node"]

    # The first webhook came before there was a node; the node that a person then starts ends its operation.
    until(lambda: states(guide) == ["succeeded"], 30, "the join ends the operation", diagnosis=guide.said)
    (first,) = guide.operations("create")
    (listed,) = guide.get("/api/v1/nodes")
    assert (first["tracked"], first["node_id"]) == (False, listed["node_id"])

    (requests,) = commands("### 2. Test Scale-Up Simulation")

    def overloaded():
        guide.typed(requests, seconds=90)
        return len(guide.webhooks(receiver)) > 1

    until(overloaded, 90, "high load calls the webhook", diagnosis=guide.said)
    webhook = guide.webhooks(receiver)[1]
    assert webhook["reason"] == "HIGH_FLEET_CPU_LOAD"
    assert webhook["fleet_metrics"]["active_nodes"] == 1
    assert 0.80 < webhook["fleet_metrics"]["avg_cpu_usage"] <= 1.0

    # A second node by hand, on an address of its own.
    config = (guide.cwd / "config" / "default.toml").read_text()
    second = re.sub(r"127\.0\.0\.1:(8443|9999)", r"127.0.0.2:\1", config)
    guide.write("config/second.toml", f'{second}metrics_addr = "127.0.0.2:9090"\nstate_dir = "second"\n')
    other = guide.terminal("secbeat node --config config/second.toml", "Registered as")
    until(lambda: states(guide) == ["succeeded"] * 2, 30, "the second join ends it", diagnosis=guide.said)
    nodes = {one["node_id"]: one for one in guide.get("/api/v1/nodes")}
    by_address = {one["address"]: one for one in nodes.values()}
    assert set(by_address) == {"127.0.0.1", "127.0.0.2"}, "each is dialled where it is"
    assert guide.operations("create")[1]["node_id"] == by_address["127.0.0.2"]["node_id"]

    # Without load one of them is told to go, with the token of the [management] table; the other serves on.
    until(lambda: states(guide, "destroy"), 60, "low load removes a node", diagnosis=guide.said)
    (destroy,) = guide.operations("destroy")
    assert destroy["reason"] == "LOW_FLEET_CPU_LOAD"
    gone, left = (node, other) if destroy["node_id"] == by_address["127.0.0.1"]["node_id"] else (other, node)
    assert gone.ended(30) == 0
    until(lambda: states(guide, "destroy") == ["needs_operator"], 30, "the end of it", diagnosis=guide.said)
    (destroy,) = guide.operations("destroy")
    assert destroy["error"]["code"] == "CANNOT_DESTROY"
    assert destroy["node_id"] in destroy["error"]["message"]
    assert left.running
    assert [one["status"] for one in guide.get("/api/v1/nodes")] == ["Active"]
    # To this receiver a request to destroy would look like another scale-up.
    assert [one["reason"] for one in guide.webhooks(receiver)] == ["BELOW_MIN_FLEET_SIZE", "HIGH_FLEET_CPU_LOAD"]
    assert receiver.stdout.count("Received webhook") == receiver.stderr.count('"POST /provision HTTP/1.1" 200') == 2


def test_without_js_the_orchestrators_start_ends_with_that_remedy(guide):
    guide.configure()
    nats, *_ = commands("### Manual startup")
    guide.terminal(nats, "Server is ready")
    ended = guide.run("secbeat orchestrator --config config/orchestrator.toml", seconds=20)
    assert ended.code == 2
    assert "error[NATS_NO_JETSTREAM]" in ended.stderr
    assert "nats-server -js --port 4222 --http_port 8222" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_guides_own_node_configuration_is_refused_until_it_is_knowingly_allowed(guide):
    """A token that everybody knows, on all addresses, in plain text."""
    guide.configure()
    nats, *_ = commands("### Manual startup")
    guide.terminal(f"{nats} -js", "Server is ready")
    guide.terminal("secbeat orchestrator --config config/orchestrator.toml", "leads with")
    (literal,) = blocks("### Mitigation Node Configuration", "toml")
    quick = "[node]\nregister_jitter_seconds = 0\npropagation_seconds = 0.3\n"

    def refused(text, code, *words):
        guide.write("config/default.toml", text + quick)
        ended = guide.run("secbeat node --config config/default.toml", seconds=20)
        assert (ended.code, f"error[{code}]" in ended.stderr) == (2, True), ended.stderr
        assert "Traceback" not in ended.stderr
        for word in words:
            assert word in ended.stderr
        assert LITERAL_TOKEN not in ended.stderr

    refused(literal, "SECRET_PLACEHOLDER", "management.auth_token", "config/default.toml:5", "openssl rand -hex 32")
    allowed = f"{literal}allow_default_token = true\n"
    refused(allowed, "BIND_INSECURE", "management.listen_addr", "0.0.0.0:9999", "127.0.0.1", "allow_plaintext = true")

    guide.write("config/default.toml", f"{allowed}allow_plaintext = true\n{quick}")
    node = guide.terminal("secbeat node --config config/default.toml", "Registered as")
    without, with_token = commands("### 3. Test Node Termination")
    assert status_of(guide.typed(without))[1] == "[401]"
    assert status_of(guide.typed(real(with_token)))[1] == "[401]", "its token is the literal one"
    assert node.running
    assert status_of(guide.typed(with_token))[1] == "[202]"
    assert node.ended(30) == 0
