"""``--wait``: follow work until it has ended, and say what is going on meanwhile.

A wait ends at once when the work has failed for good or cannot happen; a service that restarts meanwhile does not end
it. Only changes are told, one line each, and only on a terminal: what a pipeline needs is the exit code and the error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from secbeat.cli.client import Client
from secbeat.cli.durations import format_seconds
from secbeat.cli.output import clean, note
from secbeat.errors import RefusedError, SecbeatError, UnreachableError, WaitTimeoutError

DEFAULT_TIMEOUT = "20m"
POLL_SECONDS = 0.5
_API = ("api", "v1")
_ENDED = {"succeeded", "failed", "cancelled", "needs_operator"}


def on_terminal() -> bool:
    """Whether somebody looks on."""
    return sys.stderr.isatty()


def _tell(line: str) -> None:
    if on_terminal():
        note(line)


class Pace(Protocol):
    """The clock of a wait."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class Wait:
    """One wait with its deadline.

    Args:
        seconds: how long at most.
        what: named in the error when the time is over.
        pace: the clock; the machine's by default.
        tell: gets each line of progress; by default a terminal does, and a pipeline nothing.
    """

    def __init__(self, seconds: float, what: str, *, pace: Pace = time, tell: Callable[[str], None] = _tell) -> None:
        self._pace, self._tell, self._what, self._seconds = pace, tell, what, seconds
        self._start = pace.monotonic()
        self._last = ""

    def until(self, look: Callable[[], tuple[bool, str]]) -> None:
        """Call ``look`` until it is true; it returns (done, line of progress).

        Raises:
            WaitTimeoutError: WAIT_TIMED_OUT.
            SecbeatError: whatever ``look`` raises, except that the service does not answer for a while.
        """
        while True:
            try:
                done, line = look()
            except UnreachableError as error:
                done, line = False, f"{error.why}; trying again"
            self.say(line)
            if done:
                return
            left = self._seconds - (self._pace.monotonic() - self._start)
            if left <= 0:
                why = f"{self._what} is not done after {format_seconds(self._seconds)}: {line}"
                raise WaitTimeoutError("WAIT_TIMED_OUT", why=why)
            self._pace.sleep(min(POLL_SECONDS, left))

    def say(self, line: str) -> None:
        """Tell ``line`` if it is not what was said last."""
        if line != self._last:
            self._last = line
            self._tell(clean(f"{format_seconds(self._pace.monotonic() - self._start):>6}  {line}"))


def for_operation(client: Client, op_id: str, wait: Wait, *, wanted: str) -> dict[str, Any]:
    """Until the operation has ended; its record.

    Raises:
        SecbeatError: it ended otherwise than ``wanted`` (WORK_FAILED).
    """
    found: dict[str, Any] = {}

    def look() -> tuple[bool, str]:
        found.update(client.get(*_API, "operations", op_id))
        return found["state"] in _ENDED, progress(found)

    wait.until(look)
    if found["state"] != wanted:
        raise failed(found)
    return found


def progress(operation: Mapping[str, Any]) -> str:
    """One line about an operation."""
    error = operation.get("error")
    detail = f" ({error['code']}: {error['message']})" if error else ""
    stage = f": {operation['stage']}" if operation.get("stage") else ""
    return f"{operation['action']} {operation['op_id']} {operation['state']}{stage}{detail}"


def failed(operation: Mapping[str, Any]) -> SecbeatError:
    """The error of an operation that ended as it should not."""
    op_id = operation["op_id"]
    fix = f"See why: secbeat operations show {op_id}; secbeat jobs log {op_id}"
    return SecbeatError("WORK_FAILED", why=progress(operation), fix=fix)


def for_size(client: Client, pool: str, size: int, wait: Wait, *, known: set[str]) -> dict[str, Any]:
    """Until the pool serves with exactly ``size`` nodes and none is on its way in or out; its view.

    Args:
        client: of the orchestrator.
        pool: the pool.
        size: the size that was asked for.
        wait: the wait.
        known: ids of the operations that had ended before: what failed earlier is not this request's failure.

    Raises:
        SecbeatError: an operation of the pool failed meanwhile (WORK_FAILED); the loop goes on trying by itself.
        RefusedError: the pool only observes, or another request replaced this one (WAIT_POINTLESS).
    """
    view: dict[str, Any] = {}

    def look() -> tuple[bool, str]:
        view.clear()
        view.update(client.get(*_API, "pools", pool))
        _still_possible(view, pool, size)
        for operation in client.items(*_API, "operations", pool=pool):
            if operation["op_id"] not in known and operation["state"] in {"failed", "needs_operator"}:
                raise failed(operation)
        done = view["active"] == size and not view["pending"] and not view["draining"]
        line = f"{pool}: {view['active']} of {size} active, {view['pending']} pending, {view['draining']} draining"
        decision = view.get("decision") or {}
        held = "" if done or decision.get("direction") != "hold" else f"; {decision.get('sentence')}"
        return done, line + held

    wait.until(look)
    return view


def _still_possible(view: Mapping[str, Any], pool: str, size: int) -> None:
    if view.get("mode") == "observe":
        raise RefusedError("WAIT_POINTLESS", why=f"pool {pool} is in mode observe: it decides and never acts")
    override = view.get("override")
    if override is not None and override.get("size") != size:
        by = override.get("by") or "somebody"
        raise RefusedError("WAIT_POINTLESS", why=f"{by} has set pool {pool} to {override.get('size')} meanwhile")
