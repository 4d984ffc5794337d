from __future__ import annotations

import json
import time

import pytest

from secbeat.demo.reporting import Report


def good(**changes):
    report = Report(as_json=True, requests=1000)
    for name, value in changes.items():
        setattr(report, name, value)
    return report


def test_all_is_well_only_when_requests_were_sent_and_nothing_went_wrong():
    assert good().ok
    assert not good(requests=0).ok
    assert not good(failed_requests=1).ok
    assert not good(left_behind=["process 7"]).ok
    assert not good(problems=["a node ended without draining"]).ok


@pytest.mark.parametrize(("report", "code"), [(good(), 0), (good(failed_requests=1), 1)])
def test_the_result_is_one_object_on_standard_output(report, code, capsys):
    report.step("first", time.monotonic() - 2, "detail")
    report.step("second", time.monotonic())
    assert report.finish() == code
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["ok"] is (code == 0)
    assert [step["name"] for step in result["steps"]] == ["first", "second"]
    assert result["steps"][0]["seconds"] == pytest.approx(2, abs=0.5)
    assert (result["requests"], result["failed_requests"], result["left_behind"]) == (1000, int(code), [])
    assert "first" in said.err
    assert "detail" in said.err


def test_for_people_the_verdict_is_the_last_line(capsys):
    report = Report(as_json=False, requests=10, problems=["demo-1 ended without its final heartbeat"])
    assert report.finish() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split()[0] == "FAILED"
    assert any("demo-1" in line for line in lines)
