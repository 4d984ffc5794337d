"""A node comes and goes for real; what the services tell of it is right: traces, logs, metrics, stages."""

from __future__ import annotations

import json
from datetime import datetime

import aiohttp
import jsonschema
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from secbeat.catalogue import ALL
from secbeat.telemetry import logschema
from secbeat.telemetry.catalogue import of
from secbeat.up import Instance

CONFIG = """
[orchestrator]
heartbeat_interval_seconds = 0.5
[pools.default]
min = 1
max = 2
scaling_check_interval_seconds = 0.5
drain_deadline_seconds = 5
[blueprints.default]
variables = {{secbeat_node_propagation_seconds = 0.2, password = "a-secret-of-the-blueprint"}}
[telemetry]
otlp_endpoint = "{collector}"
"""


class Loop:
    """One instance's life, and what was seen of it."""

    def __init__(self):
        self.lines = []
        self.scrapes = {}
        self.modern = ""
        self.operations = {}
        self.secrets = []


async def scrape(url, token=None, **headers):
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.text()


@pytest.fixture
async def loop(tmp_path, collector, soon):
    seen = Loop()
    config = CONFIG.format(collector=collector.url)
    async with Instance(
        tmp_path / "s",
        config_text=config,
        free_ports=True,
        on_line=lambda name, line: seen.lines.append((name, line)),
    ) as instance:

        async def operation(action):
            found = await instance.api.items("/api/v1/operations")
            ended = [op for op in found if op["action"] == action and op["state"] == "succeeded"]
            return ended[0] if ended else None

        async def node():
            found = await instance.api.items("/api/v1/nodes")
            return found[0] if found and found[0]["state"] == "active" else None

        seen.operations["create"] = await soon(lambda: operation("create"))
        await soon(node)
        (machine,) = (instance.state.path / "machines").glob("*-*")
        where = json.loads((machine / "machine.json").read_text())
        seen.scrapes["node"] = await scrape(f"http://{where['address']}:{where['ports']['metrics']}/metrics")
        metrics = f"{instance.urls.provisioner}/metrics"
        seen.scrapes["orchestrator"] = await scrape(instance.urls.metrics)
        seen.scrapes["provisioner"] = await scrape(metrics, instance.tokens["read"])
        seen.modern = await scrape(instance.urls.metrics, Accept="application/openmetrics-text; version=1.0.0")
        seen.secrets = [*instance.tokens.values(), "a-secret-of-the-blueprint"]
        assert await instance.retire() == []
        seen.operations["destroy"] = await soon(lambda: operation("destroy"))
    return seen


async def test_what_is_told_of_a_node_that_comes_and_goes(loop, collector):
    """One instance for all of it: starting one costs more than looking."""
    one_trace_from_the_decision_to_the_tasks(loop, collector)
    stages_add_up(loop)
    every_line_is_valid(loop)
    metrics_are_those_of_the_catalogue(loop)
    reasons_are_of_the_closed_list(loop)
    exemplars_are_in_the_openmetrics_form_alone(loop)
    no_secret_is_in_a_span(loop, collector)


def one_trace_from_the_decision_to_the_tasks(loop, collector):
    for action, name in (("create", "scale up"), ("destroy", "scale down")):
        op = loop.operations[action]
        (root,) = [span for span in collector.named(name) if span.attributes["secbeat.op_id"] == op["op_id"]]
        trace = {span.span_id: span for span in collector.spans if span.trace_id == root.trace_id}
        assert (root.service, root.parent_id, root.error) == ("secbeat-orchestrator", "", None)
        assert root.attributes["secbeat.decision.code"] == op["reason"]
        (task, *_) = [span for span in trace.values() if "ansible.task.name" in span.attributes]
        chain = [task]
        while chain[-1].parent_id:
            chain.append(trace[chain[-1].parent_id])
        names = [span.name for span in chain[1:]]
        assert names == ["attempt 1", f"job {action}", f"webhook {action}", name]
        assert {span.service for span in chain} == {"secbeat-orchestrator", "secbeat-provisioner"}
        # The first attempts may have come before the provisioner listened.
        broken = [span for span in trace.values() if span.error and span.error != "WEBHOOK_UNREACHABLE"]
        assert not broken
        stages = [span.name.removeprefix("stage ") for span in trace.values() if span.name.startswith("stage ")]
        assert stages == [stage["name"] for stage in op["stages"]]
        logged = [json.loads(line) for _, line in loop.lines if root.trace_id in line]
        assert {line["service"] for line in logged} == {"orchestrator", "provisioner"}


def stages_add_up(loop):
    create = loop.operations["create"]
    assert [stage["name"] for stage in create["stages"]] == ["webhook", "queue", "engine", "boot", "join", "rotation"]
    destroy = loop.operations["destroy"]
    assert [stage["name"] for stage in destroy["stages"]] == [
        "notice", "drain", "webhook", "queue", "teardown", "confirm",
    ]  # fmt: skip
    for op in loop.operations.values():
        wall = (datetime.fromisoformat(op["ended_at"]) - datetime.fromisoformat(op["created_at"])).total_seconds()
        assert sum(stage["seconds"] for stage in op["stages"]) == pytest.approx(wall, abs=0.001)


def every_line_is_valid(loop):
    validator = jsonschema.Draft202012Validator(logschema.load())
    services = set()
    for name, line in loop.lines:
        if name == "nats":
            continue
        found = json.loads(line)
        problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(found)]
        assert not problems, (line, problems)
        services.add(found["service"])
    assert services == {"orchestrator", "provisioner"}


def metrics_are_those_of_the_catalogue(loop):
    for service, text in loop.scrapes.items():
        known = of(service)
        labels = {name: frozenset(metric.labels) for metric in known.values() for name in metric.series}
        announced = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        assert announced == set(known), announced ^ set(known)
        for family in parse(text):
            for sample in family.samples:
                own = frozenset(sample.labels) - ({"le"} if sample.name.endswith("_bucket") else set())
                assert own == labels[sample.name], sample


def reasons_are_of_the_closed_list(loop):
    found = {
        sample.labels["code"]
        for family in parse(loop.scrapes["orchestrator"])
        for sample in family.samples
        if sample.name == "secbeat_decisions_total"
    }
    assert found
    assert found <= set(ALL)


def exemplars_are_in_the_openmetrics_form_alone(loop):
    traced = [
        sample.exemplar.labels["trace_id"]
        for family in parse_openmetrics(loop.modern)
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert set(traced) == {loop.operations["create"]["traceparent"].split("-")[1]}
    assert "trace_id" not in loop.scrapes["orchestrator"]


def no_secret_is_in_a_span(loop, collector):
    told = b"".join(collector.raw)
    for secret in loop.secrets:
        assert secret.encode() not in told
