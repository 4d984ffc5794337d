"""What the demo tells: each step with its real time, then the figures; or one JSON object."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any


class DemoFailed(Exception):
    """A check of the demo did not hold; the text says which."""


@dataclass
class Step:
    """One finished step."""

    name: str
    seconds: float
    detail: str = ""


@dataclass
class Report:
    """Collects steps and figures; prints as it goes unless the result is to be JSON."""

    as_json: bool
    steps: list[Step] = field(default_factory=list)
    requests: int = 0
    failed_requests: int = 0
    left_behind: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    @property
    def ok(self) -> bool:
        return not (self.problems or self.failed_requests or self.left_behind) and self.requests > 0

    def say(self, text: str) -> None:
        """A line for people, on standard error: standard output is for the result."""
        print(text, file=sys.stderr, flush=True)

    def step(self, name: str, began: float, detail: str = "") -> None:
        """Record a step that began at ``began`` (monotonic) and has just ended."""
        seconds = time.monotonic() - began
        self.steps.append(Step(name, round(seconds, 2), detail))
        self.say(f"  {len(self.steps):>2}. {name:<34} {seconds:6.1f} s   {detail}".rstrip())

    def result(self) -> dict[str, Any]:
        """The whole as one object."""
        return {
            "ok": self.ok,
            "steps": [{"name": step.name, "seconds": step.seconds} for step in self.steps],
            "requests": self.requests,
            "failed_requests": self.failed_requests,
            "left_behind": self.left_behind,
            "problems": self.problems,
            "facts": self.facts,
        }

    def finish(self) -> int:
        """Print the verdict; returns the exit code."""
        if self.as_json:
            print(json.dumps(self.result()), flush=True)
            return 0 if self.ok else 1
        total = time.monotonic() - self._began
        print()
        print(f"  requests      {self.requests} sent, {self.failed_requests} failed")
        print(f"  left behind   {', '.join(self.left_behind) or 'nothing'}")
        for problem in self.problems:
            print(f"  problem       {problem}")
        print(f"  {'ok' if self.ok else 'FAILED'}            {total:.0f} s in all", flush=True)
        return 0 if self.ok else 1
