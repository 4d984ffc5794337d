"""`secbeat demo` as a person runs it: what it proves, what makes it fail, what an interrupt leaves."""

from __future__ import annotations

import signal

import pytest

STEPS = [
    "NATS, orchestrator, provisioner up",
    "one node joined and answers",
    "what a request costs, measured",
    "load: twice what a node carries",
    "second node built, joined, serves",
    "third node built, joined, serves",
    "load down to a tenth",
    "drained, left, torn down (1)",
    "drained, left, torn down (2)",
    "last node drained, store empty",
    "services stopped, nothing left",
]


@pytest.mark.timeout(400)
def test_the_whole_loop_runs_under_load_without_a_lost_request_and_leaves_nothing(demo):
    assert demo.wait() == 0, demo.stderr + (demo.home / "stdout").read_text()
    result = demo.result
    assert result["ok"] is True
    assert result["problems"] == []
    assert [step["name"] for step in result["steps"]] == STEPS
    # A step may be over when it is looked at: two nodes can be built side by side.
    assert all(step["seconds"] >= 0 for step in result["steps"])
    assert sum(step["seconds"] for step in result["steps"]) > 20
    assert result["requests"] > 1000
    assert result["failed_requests"] == 0
    assert result["left_behind"] == []
    assert len(demo.seen) >= 9, "the demo, its load, its origin, three services and three nodes were seen to run"
    assert demo.remains() == []
    assert demo.directories() == []


@pytest.mark.timeout(400)
def test_a_victim_killed_in_mid_drain_fails_the_demo_which_names_it(demo):
    def draining():
        machines = demo.machines()
        return [
            machines[node["name"]] for node in demo.nodes() if node["state"] == "draining" and node["name"] in machines
        ]

    demo.until(lambda: "load down to a tenth" in demo.stderr)
    victim, *_ = demo.until(draining)
    names = {process: name for name, process in demo.machines().items()}
    victim.kill()
    assert demo.wait() == 1
    result = demo.result
    assert result["ok"] is False
    assert any(names[victim] in problem for problem in result["problems"]), result["problems"]
    assert demo.remains() == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGTERM, "load: twice what a node carries"), (signal.SIGHUP, "state: ")]
)
def test_an_interrupt_leaves_no_process_and_no_directory(demo, number, moment):
    demo.until(lambda: moment in demo.stderr)
    demo.process.send_signal(number)
    assert demo.wait() == 130
    assert demo.result["ok"] is False
    assert demo.result["problems"][-1] == "interrupted"
    assert demo.remains() == []
    assert demo.directories() == []


@pytest.mark.timeout(400)
def test_a_second_interrupt_ends_at_once_and_leaves_nothing_either(demo):
    demo.until(lambda: "one node joined and answers" in demo.stderr)
    assert demo.machines()
    demo.process.send_signal(signal.SIGINT)
    demo.until(lambda: any(node["state"] == "draining" for node in demo.nodes()))
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait(30) == 130
    assert demo.remains() == []
    assert demo.directories() == []
