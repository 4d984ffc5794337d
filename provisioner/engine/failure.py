"""Why a playbook failed, as one sentence: the task, the host, the message."""

from __future__ import annotations

import re
from typing import Any

from secbeat.wire.jobs import JobError

_MESSAGE_LIMIT = 1500
_LIMITED = re.compile(
    r"quota|\b429\b|rate.?limit|too many requests|throttl|insufficient capacity|no capacity", re.IGNORECASE
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PROBLEM_LINE = re.compile(r"^\s*\[?(ERROR|FATAL)\b|^Traceback|^ERROR!")


def plain(text: str) -> str:
    """Terminal output without colours, cursor movements and a terminal's line ends."""
    return _ANSI.sub("", text).replace("\r\n", "\n")


class FailureWatch:
    """Sees every event of a run and says at the end what broke it."""

    def __init__(self) -> None:
        self._failures: list[JobError] = []
        self._problems: list[str] = []
        self._tail: list[str] = []
        self._rescued = 0

    def see(self, event: dict[str, Any]) -> None:
        """One event, already redacted."""
        kind, data = event.get("event", ""), event.get("data") or {}
        if kind in ("runner_on_failed", "runner_on_unreachable") and not data.get("ignore_errors"):
            self._failures.append(_failure(kind, data))
        elif kind == "playbook_on_stats":
            self._rescued = sum((data.get("rescued") or {}).values())
        elif kind == "verbose":
            self._line(plain(event.get("stdout", "")))

    def _line(self, text: str) -> None:
        if not text.strip():
            return
        if _PROBLEM_LINE.search(text):
            self._problems.append(text.strip()[:_MESSAGE_LIMIT])
        self._tail = [*self._tail[-4:], text.strip()[:300]]

    def verdict(self, rc: int) -> JobError:
        """The error of a run that ended with ``rc`` other than 0."""
        if self._failures:
            # After a rescue the first failure was mended; the last one is what stopped the play.
            return self._failures[-1] if self._rescued else self._failures[0]
        if self._problems:
            return JobError(code="PLAYBOOK_INVALID", message=self._problems[0], retryable=False)
        last = " / ".join(self._tail) or "it printed nothing"
        invalid = rc in {1, 4, 5}
        code = "PLAYBOOK_INVALID" if invalid else "PLAYBOOK_FAILED"
        return JobError(
            code=code, message=f"ansible-playbook ended with {rc}: {last}"[:_MESSAGE_LIMIT], retryable=not invalid
        )


def _failure(kind: str, data: dict[str, Any]) -> JobError:
    task, host, message = data.get("task") or "?", data.get("host") or "?", _message(data.get("res") or {})
    if kind == "runner_on_unreachable":
        code = "HOST_UNREACHABLE"
    else:
        code = "PROVIDER_LIMIT" if _LIMITED.search(message) else "PLAYBOOK_FAILED"
    sentence = f"task '{task}' failed on {host}: {message}"
    return JobError(code=code, message=sentence[:_MESSAGE_LIMIT], task=task[:500])


def _message(result: dict[str, Any]) -> str:
    """The most telling text of a task's result."""
    for item in result.get("results") or []:
        if isinstance(item, dict) and item.get("failed"):
            return _message(item)
    parts = [str(result.get("msg") or "").strip()]
    for key in ("stderr", "module_stderr", "exception"):
        text = str(result.get(key) or "").strip()
        if text:
            parts.append(text.splitlines()[-1])
            break
    else:
        if result.get("rc") and result.get("stdout"):
            parts.append(str(result["stdout"]).strip().splitlines()[-1])
    return plain(": ".join(part for part in parts if part)) or "no message"
