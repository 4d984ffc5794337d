from __future__ import annotations

import pytest

from provisioner.engine.failure import FailureWatch, plain


def failed(task, result, kind="runner_on_failed", **data):
    return {"event": kind, "data": {"task": task, "host": "h1", "res": result, **data}}


def verdict(*events, rc=2):
    watch = FailureWatch()
    for event in events:
        watch.see(event)
    return watch.verdict(rc)


def test_the_first_failure_is_the_reason():
    error = verdict(failed("A", {"msg": "first"}), failed("B", {"msg": "second"}))
    assert (error.code, error.task) == ("PLAYBOOK_FAILED", "A")
    assert error.message == "task 'A' failed on h1: first"


def test_after_a_rescue_the_last_failure_is_the_reason():
    stats = {"event": "playbook_on_stats", "data": {"rescued": {"h1": 1}}}
    assert verdict(failed("A", {"msg": "mended"}), failed("B", {"msg": "final"}), stats).task == "B"


def test_an_ignored_failure_is_none():
    assert verdict(failed("A", {"msg": "x"}, ignore_errors=True), failed("B", {"msg": "y"})).task == "B"


def test_an_unreachable_host_has_a_code_of_its_own():
    error = verdict(failed("A", {"msg": "no route"}, kind="runner_on_unreachable"), rc=4)
    assert error.code == "HOST_UNREACHABLE"


@pytest.mark.parametrize(
    "text", ["Quota exceeded for cores", "HTTP 429", "Rate limit reached", "InsufficientInstanceCapacity: no capacity"]
)
def test_a_provider_that_refuses_is_told_apart(text):
    assert verdict(failed("A", {"msg": text})).code == "PROVIDER_LIMIT"


def test_the_last_line_of_standard_error_is_part_of_the_message():
    error = verdict(failed("A", {"msg": "non-zero return code", "rc": 1, "stderr": "noise\nno space left"}))
    assert error.message.endswith("non-zero return code: no space left")


def test_of_a_loop_the_failed_item_speaks():
    result = {"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "item broke"}]}
    assert verdict(failed("A", result)).message.endswith("item broke")


def test_without_any_task_the_error_line_speaks():
    event = {"event": "verbose", "stdout": "\x1b[31m[ERROR]: couldn't resolve module x\x1b[0m"}
    error = verdict(event, rc=4)
    assert (error.code, error.retryable) == ("PLAYBOOK_INVALID", False)
    assert "couldn't resolve module x" in error.message
    assert "\x1b" not in error.message


def test_a_run_that_says_nothing_still_has_a_sentence():
    assert "ended with 250" in verdict(rc=250).message


def test_terminal_output_becomes_plain_text():
    assert plain("\x1b[0;32mok\x1b[0m: x\r\ny\r\n") == "ok: x\ny\n"
